"""What was shown travels with a version, so that whoever judges it later knows what it knew."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rec_engine.bundle import ModelBundle, read_looks, read_split, write_history
from rec_engine.data import item_looks
from rec_engine.data.item_looks import NO_LOOKS, ItemLooks
from rec_engine.data.showings import ShowingLog
from rec_engine.errors import BundleError


def test_what_was_shown_is_read_as_it_was_written_and_versions_without_it_have_none(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    frame = pl.DataFrame({"user": [1, 0, 1], "item": [3, 3, 4], "position": [1, 2, 3], "timestamp": [50, 20, 10]})
    shown = ShowingLog.from_impressions(frame, bundle.split.train.n_users)
    write_history(tmp_path / "with", bundle.history, replace(bundle.split, shown=shown))
    write_history(tmp_path / "without", bundle.history, bundle.split)
    found, nothing = (read_split(tmp_path / name, "a split", repeats=False) for name in ("with", "without"))
    assert len(found.shown) == 3
    for name in ShowingLog.__slots__:
        assert np.array_equal(getattr(found.shown, name), getattr(shown, name))
    assert len(nothing.shown) == len(bundle.split.shown) == 0
    assert found.fingerprint == nothing.fingerprint


def test_looks_at_items_of_the_last_weeks_are_read_as_they_were_written(bundle: ModelBundle, tmp_path: Path) -> None:
    now, day = int(bundle.history.timestamps.max()), 86_400
    rows = [(0, 3, 1, now), (7_000, 3, 4, now), (1, 4, 1, now - 29 * day), (1, 5, 1, now - 40 * day)]
    frame = pl.DataFrame(rows, schema=["user", "item", "position", "timestamp"], orient="row")
    shown = ShowingLog.from_impressions(frame, bundle.split.train.n_users)
    for name, split in (("with", replace(bundle.split, shown=shown)), ("without", bundle.split)):
        write_history(tmp_path / name, bundle.history, split)
    found = read_looks(tmp_path / "with", n_items=5)
    assert (found.item_codes.tolist(), found.looks.tolist()) == ([3, 4], [1.5, 1.0])
    assert found.hours.tolist() == [now // 3_600, (now - 29 * day) // 3_600]
    assert read_looks(tmp_path / "without", n_items=5) is NO_LOOKS
    with pytest.raises(BundleError, match="not of this version's items"):
        read_looks(tmp_path / "with", n_items=4)


def test_an_old_version_has_no_looks_and_nothing_is_read_where_no_ranker_asks(bundle: ModelBundle) -> None:
    assert bundle.read_looks() is NO_LOOKS
    without = replace(bundle, ranker=None, read_looks=lambda: pytest.fail("nobody asks"))
    assert without.looks is NO_LOOKS


def test_looks_that_are_too_many_are_those_of_the_latest_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_looks, "MAX_ROWS", 5)
    hours = np.array([9, 1, 5, 5, 5, 7, 8, 8], dtype=np.int32)
    looks = ItemLooks(np.arange(8, dtype=np.int32), hours, np.ones(8))
    assert looks.recent(9).hours.tolist() == [9, 7, 8, 8]
