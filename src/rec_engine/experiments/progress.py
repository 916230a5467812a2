"""How far an experiment is: users and days, of those that were planned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rec_engine.experiments.design import Design
from rec_engine.experiments.looks import TOLERANCE
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.moments import DoubleArray
from rec_engine.experiments.results import Look

MIN_PACE = 0.01
"""Share of the planned users from which their pace says something of the rest."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an experiment is.

    Attributes:
        users: (n_phases, n_arms).
        planned_users: at which it is complete.
        fraction: of those that are there; may exceed 1.
        days: since the start.
        days_left: until it is complete at the present pace; None if there is no pace yet.
        missing: what there is too little of for any verdict, a phrase each.
        is_final: whether no more users come.
    """

    users: DoubleArray
    planned_users: int
    fraction: float
    days: int
    days_left: int | None
    missing: tuple[str, ...]
    is_final: bool

    @property
    def n_users(self) -> int:
        """Users in all arms."""
        return int(self.users.sum())


def progress_of(design: Design, measured: Measurements, *, is_final: bool) -> Progress:
    """Return how far the experiment is. Without planned users it is complete at the least users in every arm."""
    n_arms = len(measured.arms)
    cell = measured.phase.astype(np.int64) * n_arms + measured.arm
    users = np.bincount(cell, minlength=measured.shares.size).reshape(measured.shares.shape).astype(np.float64)
    planned = design.planned_users or design.min_sample_size * n_arms
    return Progress(
        users=users,
        planned_users=planned,
        fraction=measured.n_users / planned,
        days=measured.days,
        days_left=_days_left(design, planned, users.sum(axis=0), measured.days),
        missing=_missing(design, users.sum(axis=0), measured),
        is_final=is_final,
    )


def is_complete(design: Design, looks: Sequence[Look], progress: Progress) -> bool:
    """Return whether the last planned look is taken; without planned looks, whether the planned users are there."""
    if progress.is_final:
        return True
    if design.method == "always_valid":
        return not progress.missing and progress.fraction >= 1 - TOLERANCE
    return bool(looks) and looks[-1].fraction >= 1 - TOLERANCE


def _days_left(design: Design, planned: int, users: DoubleArray, days: int) -> int | None:
    """Return the days until all users are there and the least users in the smallest arm."""
    if not days or not users.all() or users.sum() < MIN_PACE * planned:
        return None
    fewest = float(users.min())
    share_missing = max(planned / float(users.sum()) - 1, design.min_sample_size / fewest - 1, 0.0)
    return max(math.ceil(share_missing * days), design.min_days - days)


def _missing(design: Design, users: DoubleArray, measured: Measurements) -> tuple[str, ...]:
    few = [
        f"{name} has {int(n):,} of at least {design.min_sample_size:,} users"
        for name, n in zip(measured.arms, users, strict=True)
        if n < design.min_sample_size
    ]
    if measured.days < design.min_days:
        few.append(f"{measured.days} of at least {design.min_days} days have passed")
    return tuple(few)
