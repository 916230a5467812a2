"""What an experiment's users did: the arrays between the log and the statistics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import IntArray

Totals = Mapping[str, NDArray[np.float64]]
"""Name of what was counted or summed (impressions, clicks, conversions, revenue, ...) to (n_users,) float64."""


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
        segments: attribute to (n_users,) str values, for a look at who gains; not part of any decision.
        n_conflicting: users left out because they met two arms.
        n_bots: users left out because nobody does so much in so little time.
        days: whole days between the start and the moment of measuring.
    """

    arms: tuple[str, ...]
    arm: IntArray
    phase: IntArray
    shares: NDArray[np.float64]
    totals: Totals
    before: Totals = field(default_factory=dict)
    segments: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    n_conflicting: int = 0
    n_bots: int = 0
    days: int = 0

    @property
    def n_users(self) -> int:
        """How many users are measured."""
        return len(self.arm)
