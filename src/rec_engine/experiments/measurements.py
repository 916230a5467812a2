"""What an experiment's users did: the arrays between the log and the statistics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import IntArray
from rec_engine.errors import DataError

Totals = Mapping[str, NDArray[np.float64]]
"""Name of what was counted or summed (impressions, clicks, conversions, revenue, ...) to (n_users,) float64."""


@dataclass(frozen=True, slots=True)
class SingleValues:
    """What users' events had one by one: what a quantile is of, which no sum per user tells.

    Attributes:
        user: (n_values,) int32, row of whose event it was.
        value: (n_values,) float64.
        is_complete: whether these are all; there are none where they would be too many to hold.
    """

    user: IntArray
    value: NDArray[np.float64]
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Measurements:
    """One row a user who was exposed to the experiment, with what he did since, within the metrics' window.

    Attributes:
        arms: their names, the control first.
        arm: (n_users,) int32, place in `arms` of what the user met first.
        phase: (n_users,) int32, which allocation was in force when he met it, from 0.
        shares: (n_phases, n_arms) float64, the allocation of each phase; rows add up to 1.
        totals: of the user since his first exposure.
        before: of the same users in as much time before it, where the log reaches back; what variance reduction reads.
        values: of the users since their first exposure, by the name of their total; only those of which a metric is a
            quantile.
        segments: attribute to (n_users,) str values, for a look at who gains; not part of any decision.
        n_conflicting: users left out because they met two arms.
        n_bots: users left out because nobody does so much in so little time.
        days: whole days between the start and the moment of measuring, without those in which it was paused.
    """

    arms: tuple[str, ...]
    arm: IntArray
    phase: IntArray
    shares: NDArray[np.float64]
    totals: Totals
    before: Totals = field(default_factory=dict)
    values: Mapping[str, SingleValues] = field(default_factory=dict)
    segments: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    n_conflicting: int = 0
    n_bots: int = 0
    days: int = 0

    def __post_init__(self) -> None:
        """Check that all arrays speak of the same users, arms and phases.

        Raises:
            DataError: they do not.
        """
        lengths = {len(self.phase)}
        for columns in (self.totals, self.before, self.segments):
            lengths |= {len(each) for each in columns.values()}
        if lengths - {len(self.arm)}:
            raise DataError(f"Measurements are of {len(self.arm)} users, but hold columns of {sorted(lengths)}.")
        if self.shares.ndim != 2 or self.shares.shape[1] != len(self.arms):
            raise DataError(f"Shares of shape {self.shares.shape} do not fit {len(self.arms)} arms.")
        for name, codes, n in (("arm", self.arm, len(self.arms)), ("phase", self.phase, len(self.shares))):
            if not _are_below(codes, n):
                raise DataError(f"A user's {name} is not one of the {n} there are.")
        for total, of in self.values.items():
            if len(of.user) != len(of.value) or not _are_below(of.user, self.n_users):
                raise DataError(f"The values of {total} are not one a row of the {self.n_users} users.")

    @property
    def n_users(self) -> int:
        """How many users are measured."""
        return len(self.arm)


def _are_below(codes: IntArray, n: int) -> bool:
    """Return whether all codes are from 0 up to n, that one not included."""
    return not len(codes) or bool(0 <= codes.min() <= codes.max() < n)
