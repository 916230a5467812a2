"""What was shown travels with a version, so that whoever judges it later knows what it knew."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from rec_engine.bundle import ModelBundle, read_split, write_history
from rec_engine.data.showings import ShowingLog


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
