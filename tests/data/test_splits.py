from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.dataset import Interactions, RecommendationDataset
from rec_engine.data.splits import Split, leave_one_out, random_split, temporal_split
from rec_engine.errors import DataError

PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure

Row = tuple[int, str, int, str]

rows_of_a_past = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from("abcdefgh"),
        st.integers(0, 40),
        st.sampled_from(["view", "view", "purchase", "dislike"]),
    ),
    min_size=5,
    max_size=40,
    unique_by=lambda row: (row[0], row[1]),
)


def past_of(rows: list[Row]) -> Interactions:
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row")
    return RecommendationDataset(frame).interactions


def pairs(part: Interactions) -> set[tuple[int, int]]:
    return set(zip(part.user_codes.tolist(), part.item_codes.tolist(), strict=True))


def check_parts(past: Interactions, split: Split) -> None:
    """The parts are disjoint, cover every positive interaction and keep the axis of users."""
    train, validation, test = pairs(split.train), pairs(split.validation), pairs(split.test)
    assert len(split.train) + len(split.validation) + len(split.test) == len(train | validation | test)
    assert pairs(past.positive()) <= train | validation | test <= pairs(past)
    assert (split.validation.weights > 0).all()
    assert (split.test.weights > 0).all()
    assert split.train.n_users == split.validation.n_users == split.test.n_users == past.n_users


@PROPERTY
@given(rows_of_a_past)
def test_leave_one_out_parts_are_disjoint_and_cover(rows: list[Row]) -> None:
    past = past_of(rows)
    check_parts(past, leave_one_out(past))


@PROPERTY
@given(rows_of_a_past)
def test_leave_one_out_takes_each_users_last_two_positives(rows: list[Row]) -> None:
    past = past_of(rows)
    split, positive = leave_one_out(past), past.positive()
    for user in range(past.n_users):
        items = positive.items_of(user).tolist()
        has_targets = len(items) >= 3
        assert split.test.items_of(user).tolist() == (items[-1:] if has_targets else [])
        assert split.validation.items_of(user).tolist() == (items[-2:-1] if has_targets else [])


@PROPERTY
@given(rows_of_a_past)
def test_leave_one_out_trains_on_nothing_that_the_user_did_after_a_target(rows: list[Row]) -> None:
    past = past_of(rows)
    split = leave_one_out(past)
    for user in np.flatnonzero(np.diff(split.validation.starts)):
        target_time = split.validation.timestamps[split.validation.starts[user]]
        own = slice(split.train.starts[user], split.train.starts[user + 1])
        assert (split.train.timestamps[own] <= target_time).all()


def test_leave_one_out_drops_negative_feedback_between_and_after_the_targets() -> None:
    events = ["view", "dislike", "view", "dislike", "view", "dislike"]
    past = past_of(
        [(1, item, moment, event) for moment, (item, event) in enumerate(zip("abcdef", events, strict=True))]
    )
    split = leave_one_out(past)
    assert split.train.item_codes.tolist() == [0, 1]
    assert split.validation.item_codes.tolist() == [2]
    assert split.test.item_codes.tolist() == [4]


@PROPERTY
@given(rows_of_a_past)
def test_temporal_parts_are_disjoint_cover_and_follow_each_other(rows: list[Row]) -> None:
    past = past_of([(user, item, place // 2, event) for place, (user, item, _, event) in enumerate(rows)])
    split = temporal_split(past, test_share=0.2, validation_share=0.2)
    check_parts(past, split)
    ordered = [part.timestamps for part in (split.train, split.validation, split.test) if len(part)]
    assert all(before.max() < after.min() for before, after in zip(ordered, ordered[1:], strict=False))


def test_temporal_split_gives_the_shares_where_times_are_distinct() -> None:
    past = past_of(
        [(user, item, 8 * user + place, "view") for user in range(5) for place, item in enumerate("abcdefgh")]
    )
    split = temporal_split(past, test_share=0.1, validation_share=0.2)
    assert (len(split.train), len(split.validation), len(split.test)) == (27, 8, 5)


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.1, 0.0), (0.5, 0.5), (-0.1, 0.2)])
def test_shares_that_leave_no_training_part_are_an_error(shares: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="leave no training part"):
        temporal_split(past_of([(1, "a", 1, "view"), (1, "b", 2, "view")]), *shares)


def test_one_timestamp_for_all_makes_a_split_in_time_an_error() -> None:
    with pytest.raises(DataError, match="a split in time is not possible"):
        temporal_split(past_of([(user, item, 9, "view") for user in range(3) for item in "abc"]))


@PROPERTY
@given(rows_of_a_past, st.integers(0, 100))
def test_random_parts_are_disjoint_cover_and_hold_the_share_of_each_user(rows: list[Row], seed: int) -> None:
    past = past_of([(user, item, moment, "view") for user, item, moment, _ in rows])
    split = random_split(past, test_share=0.25, validation_share=0.25, seed=seed)
    check_parts(past, split)
    sizes = np.diff(past.starts)
    assert np.diff(split.test.starts).tolist() == np.diff(split.validation.starts).tolist() == (sizes // 4).tolist()


@pytest.mark.parametrize("split", [leave_one_out, temporal_split, random_split])
def test_the_same_data_gives_the_same_fingerprint_and_other_data_another(
    split: Callable[[Interactions], Split],
) -> None:
    rows = [(user, item, 8 * user + place, "view") for user in range(5) for place, item in enumerate("abcdefgh")]
    assert split(past_of(rows)).fingerprint == split(past_of(rows)).fingerprint
    swapped = [(user, "hbcdefga"["abcdefgh".index(item)], moment, event) for user, item, moment, event in rows]
    assert split(past_of(rows)).fingerprint != split(past_of(swapped)).fingerprint


def test_another_seed_draws_another_random_split() -> None:
    past = past_of([(user, item, 1, "view") for user in range(5) for item in "abcdefgh"])
    assert random_split(past, seed=1).fingerprint == random_split(past, seed=1).fingerprint
    assert random_split(past, seed=1).fingerprint != random_split(past, seed=2).fingerprint
