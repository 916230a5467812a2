"""The future where it should not be: in the training part, in attributes of items and users, in ranking features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import rankdata

from rec_engine.data.dataset import BoolArray, FloatArray, Interactions
from rec_engine.data.scratch import row_blocks
from rec_engine.data.splits import Split
from rec_engine.evaluation.metrics import DoubleArray

SUSPICIOUS = 0.5
"""Counts of all time reach .65 to .98 on MovieLens and a shop's sales, honest attributes .36 at most (the year)."""
MIN_ROWS = 50
TOLERANCE = 0.01
"""Features that change by less than a hundredth are the same: a world that ends also has a last moment."""


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """One question to the data, and its answer.

    Attributes:
        name: what was looked at.
        found: whether there is something to worry about.
        detail: what was seen, in a sentence.
    """

    name: str
    found: bool
    detail: str


def check_held_out(split: Split) -> LeakCheck:
    """Return whether there is a test part; without one the model is judged by what it was chosen on."""
    detail = "a test part was kept that chose neither settings nor epochs nor the ranker"
    if not len(split.test):
        detail = "nothing was kept for testing: settings, epochs and the ranker were chosen on what is reported"
    return LeakCheck("figures of what choices were made on", found=not len(split.test), detail=detail)


def check_split(split: Split) -> list[LeakCheck]:
    """Return whether rows are in two parts, and how much of the training part is later than what is to be found."""
    return [_shared_rows(split), _later_rows(split)]


def check_attributes(kind: str, attributes: pl.DataFrame, past: DoubleArray, future: DoubleArray) -> LeakCheck:
    """Return whether an attribute says more of the test part than the past does, as a count of all time would.

    The measure is Spearman's correlation of attribute and future once the past is taken out of both; SUSPICIOUS and
    above is a suspicion, not a proof: an attribute may also be good.

    Args:
        kind: "item" or "user".
        attributes: one numeric column an attribute, one row an item or user.
        past: (n,) interactions of each in the training part.
        future: (n,) interactions of each in the test part.
    """
    name = f"{kind} attributes that know the future"
    if len(past) < MIN_ROWS or future.max() == future.min():
        return LeakCheck(name, found=False, detail=f"not to be told from {len(past):,} {kind}s of this split")
    known = {column.name: _partial_rank_correlation(column.to_numpy(), future, past) for column in attributes}
    suspects = [f"{name} ({value:+.2f})" for name, value in known.items() if abs(value) >= SUSPICIOUS]
    if suspects:
        return LeakCheck(name, found=True, detail=f"may be made of the test part: {', '.join(suspects)}")
    highest = max((abs(value) for value in known.values()), default=0.0)
    return LeakCheck(name, found=False, detail=f"{len(known)} columns; the strongest tie is {highest:.2f}")


def check_features(names: Sequence[str], as_used: FloatArray, without_future: FloatArray) -> LeakCheck:
    """Return which ranking features change when everything after the request is taken away.

    Args:
        names: of the features.
        as_used: (n, n_features) as training and evaluation compute them.
        without_future: (n, n_features) of the same candidates, from a world that ends with the request.
    """
    same: BoolArray = np.isclose(as_used, without_future, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    changed = [name for column, name in enumerate(names) if not same[:, column].all()]
    label = "ranking features that know the future"
    if not changed:
        return LeakCheck(label, found=False, detail=f"none of {len(names)} changes when the future is taken away")
    detail = f"{len(changed)} of {len(names)} change when the future is taken away: {', '.join(changed)}"
    return LeakCheck(label, found=True, detail=detail)


def _shared_rows(split: Split) -> LeakCheck:
    n_shared = 0
    for users in split.train.user_blocks():
        train, validation, test = (_rows(part.of_range(users)) for part in (split.train, split.validation, split.test))
        n_shared += test.join(pl.concat([train, validation]), on=test.columns, how="semi").height
    detail = (
        f"{n_shared:,} of {len(split.test):,} test rows (user, item, time) are in the training or validation part too"
    )
    return LeakCheck("rows in two parts", found=n_shared > 0, detail=detail)


def _rows(part: Interactions) -> pl.DataFrame:
    return pl.DataFrame({"user": part.user_codes, "item": part.item_codes, "time": part.timestamps})


def _later_rows(split: Split) -> LeakCheck:
    name = "training rows later than what is to be found"
    if not len(split.test) or not len(split.train):
        return LeakCheck(name, found=False, detail="nothing is held out")
    moments, n_later = np.sort(split.test.timestamps), 0
    for rows in row_blocks(len(split.train)):
        n_later += int(np.searchsorted(moments, split.train.timestamps[rows]).sum())
    share = n_later / (len(split.test) * len(split.train))
    if share == 0:
        return LeakCheck(name, found=False, detail="none: the whole test part is later than the training part")
    detail = (
        f"for the average test row {share:.0%} of the training part lies in its future ({split.name}): the figures "
        "tell models apart, but a temporal split tells how good they will be"
    )
    return LeakCheck(name, found=True, detail=detail)


def _partial_rank_correlation(values: FloatArray, future: DoubleArray, past: DoubleArray) -> float:
    """Return the correlation of the ranks of values and future, both with the ranks of the past regressed out."""
    ranks = [rankdata(series) for series in (values, future, past)]
    value, target, known = (series - series.mean() for series in ranks)
    left = value - known * (value @ known) / max(float(known @ known), 1e-12)
    right = target - known * (target @ known) / max(float(known @ known), 1e-12)
    scale = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / scale if scale > 1e-9 else 0.0
