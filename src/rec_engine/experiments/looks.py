"""Which looks at the results count, and what they say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rec_engine.experiments.design import Design
from rec_engine.experiments.results import Look, LookStatistic
from rec_engine.experiments.sequential import Path, Spending, bounds, p_value, spent

TOLERANCE = 1e-9


def planned_looks(design: Design) -> int:
    """Return how many looks the design has: several where it is group-sequential, one at the planned end otherwise."""
    return design.planned_looks if design.method == "group_sequential" else 1


def is_due(design: Design, past: Sequence[Look], fraction: float, *, is_ready: bool, is_final: bool) -> bool:
    """Return whether a look at this fraction of the planned users is the next planned one.

    A look that was missed is not made up for: the next one is the next planned fraction.

    Args:
        design: of the experiment.
        past: looks taken.
        fraction: of the planned users.
        is_ready: whether the least users and days are there.
        is_final: whether no more users come.
    """
    if not is_ready or (past and past[-1].fraction >= 1 - TOLERANCE):
        return False
    if is_final:
        return True
    n_planned = planned_looks(design)
    taken = math.floor(past[-1].fraction * n_planned + TOLERANCE) if past else 0
    return fraction >= (taken + 1) / n_planned - TOLERANCE


@dataclass(frozen=True, slots=True)
class Standing:
    """What the looks so far say of one metric and arm.

    Attributes:
        p_value: two-sided, valid at all planned looks together.
        is_up: whether it is better rather than worse at the look that says most.
        bound: z that the last look had to cross at the design's level.
    """

    p_value: float
    is_up: bool
    bound: float


def standing(statistics: Sequence[LookStatistic | None], looks: Sequence[Look], level: float) -> Standing | None:
    """Return what the looks say of a difference; None before the first, or where none could be computed."""
    return _standing([None if each is None else each.z for each in statistics], statistics, looks, level)


def margin_standing(statistics: Sequence[LookStatistic | None], looks: Sequence[Look], level: float) -> Standing | None:
    """Return what the looks say of a guardrail against its margin.

    The level is spent evenly: a guardrail is asked when the primary metric has won, which may be early.

    References:
        Glimm, Maurer and Bretz, Hierarchical testing of multiple endpoints in group-sequential trials, 2010.
    """
    z = [None if each is None else each.z_margin for each in statistics]
    return _standing(z, statistics, looks, level, "pocock")


def alpha_spent(design: Design, looks: Sequence[Look]) -> float | None:
    """Return how much of the level the looks have spent; None where the method has no planned looks."""
    if design.method == "always_valid":
        return None
    if not looks:
        return 0.0
    level = design.significance_level
    return level if planned_looks(design) == 1 else 2 * float(spent(looks[-1].fraction, level / 2))


def _standing(
    z: Sequence[float | None],
    statistics: Sequence[LookStatistic | None],
    looks: Sequence[Look],
    level: float,
    spending: Spending = "obrien_fleming",
) -> Standing | None:
    usable = [
        (look.fraction, statistic.information, value)
        for value, statistic, look in zip(z, statistics, looks, strict=True)
        if value is not None and statistic is not None and statistic.information > 0
    ]
    if not usable:
        return None
    path = Path(tuple(each[0] for each in usable), tuple(each[1] for each in usable))
    values = [each[2] for each in usable]
    limits = bounds(path, level, spending)
    telling = max(range(len(values)), key=lambda look: abs(values[look]) - min(limits[look], 1e3))
    return Standing(p_value(path, values, spending), values[telling] > 0, limits[-1])
