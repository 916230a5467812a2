"""The leak detector finds what was planted, and is quiet where nothing was."""

import numpy as np
import polars as pl
import pytest
from worlds import interactions

from rec_engine.data.splits import Split, leave_one_out, temporal_split
from rec_engine.evaluation.leaks import check_attributes, check_features, check_split

RNG = np.random.default_rng(0)
N = 400
POPULARITY = RNG.gamma(1.0, 20.0, N)
PAST, FUTURE = (RNG.poisson(POPULARITY * share).astype(np.float64) for share in (0.8, 0.2))


def attributes(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> pl.DataFrame:
    return pl.DataFrame({"noise": RNG.normal(size=N), "suspect": values}, schema_overrides={"suspect": pl.Float32})


@pytest.mark.parametrize("planted", [PAST + FUTURE, FUTURE, np.log1p(PAST + FUTURE) * 3])
def test_a_count_of_all_time_is_found_by_name(planted: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    found = check_attributes("item", attributes(planted), PAST, FUTURE)
    assert found.found
    assert "suspect" in found.detail
    assert "noise" not in found.detail


@pytest.mark.parametrize("honest", [PAST, POPULARITY * 0 + 1, RNG.normal(size=N)])
def test_what_is_made_of_the_past_is_none(honest: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    assert not check_attributes("item", attributes(honest), PAST, FUTURE).found


def test_where_all_have_the_same_future_nothing_can_be_told() -> None:
    same = check_attributes("user", attributes(PAST), PAST, np.ones(N))
    assert not same.found
    assert "not to be told" in same.detail


def test_a_temporal_split_has_no_later_training_rows_and_leave_one_out_has() -> None:
    rows = interactions([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 8, 7, 6], [1, 2, 3]])
    temporal, one_out = check_split(temporal_split(rows, 0.2, 0.2)), check_split(leave_one_out(rows))
    assert [check.found for check in temporal] == [False, False]
    assert [check.found for check in one_out] == [False, True]


def test_a_row_in_two_parts_is_found() -> None:
    rows = interactions([[0, 1, 2], [2, 1, 0]])
    test = rows.where(rows.item_codes == 2)
    found = check_split(Split("careless", rows, rows.where(rows.item_codes < 0), test))[0]
    assert found.found
    assert found.detail.startswith("2 of 2")


def test_only_features_that_change_are_named() -> None:
    used = np.array([[1.0, np.nan, 5.0], [2.0, 3.0, 5.0]], dtype=np.float32)
    without = np.array([[1.0, np.nan, 5.0], [2.5, 3.0, 5.0]], dtype=np.float32)
    assert not check_features(["a", "b", "c"], used, used.copy()).found
    found = check_features(["a", "b", "c"], used, without)
    assert found.found
    assert found.detail.endswith(": a")
