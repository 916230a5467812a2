"""Who meets which arm: a pure function of the experiment and the user's id, so that every process agrees.

Three hashes that know nothing of each other say in which part of a layer a user is, whether he takes part, and which
arm he meets. With one hash for two of these questions the answers would depend on each other: at 10% coverage all who
take part would meet the same arm.
"""

import math
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray, ExternalId, IntArray
from rec_engine.experiments.definition import INTERLEAVED, Experiment
from rec_engine.utils.short_hash import sha256

Reason = Literal[
    "assigned", "met before", "forced", "not running", "not targeted", "held out", "another layer slot", "not covered"
]
_SEPARATOR = "\x1f"
_TO_UNIT = 2.0**-53
_FIRST_64_BITS = struct.Struct(">Q").unpack_from
NO_ATTRIBUTES: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an experiment has for a user.

    Attributes:
        arm: its name, or INTERLEAVED where both fill his lists; None for who is in none.
        in_experiment: whether he is measured; not so for who is in no arm, or was put into one by hand.
        reason: why.
        propensity: with which probability a user of the experiment is given this arm.
        phase: which allocation was in force, from 0.
    """

    arm: str | None
    in_experiment: bool
    reason: Reason
    propensity: float
    phase: int


def assign(
    experiment: Experiment,
    user_id: ExternalId,
    now: float,
    attributes: Mapping[str, object] = NO_ATTRIBUTES,
    met: str | None = None,
) -> Assignment:
    """Return what an experiment has for a user; nothing is written. Whoever asks again and again keeps a `Draw`.

    As long as the arms' shares stay, a larger coverage only adds users, and nobody changes arms. Where shares have
    changed, who met an arm before stays in it. A bandit draws its users anew in each batch, which is
    a phase.

    Args:
        experiment: as it is now.
        user_id: 123 and "123" are the same user.
        now: Unix seconds.
        attributes: of the user; what `targeting` asks for.
        met: the arm that the user met before, where that is known.
    """
    return Draw(experiment).assign(str(user_id), now, attributes, met)


class Draw:
    """One state of an experiment, ready to be asked at every request: what is the same for all users is known.

    Args:
        experiment: as it is now.

    Attributes:
        experiment: whose users are drawn.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        phase = len(experiment.phases) - 1
        shares = experiment.phase.shares
        salt = f"{experiment.salt}:batch {phase}" if experiment.kind == "bandit" else experiment.salt
        self._salt = f"{salt}:assign"
        self._phase = phase
        self._forced = {user: _forced(arm, phase) for user, arm in experiment.forced.items()}
        self._begins = -math.inf if experiment.starts_at is None else experiment.starts_at
        self._ends = math.inf if experiment.ends_at is None else experiment.ends_at
        self._is_running = experiment.status == "running"
        self._is_for_all = not (experiment.targeting or experiment.holdout or experiment.layer) and (
            experiment.phase.coverage >= 1
        )
        *ends, _ = accumulate(shares)  # the last arm has the rest: shares add up to 1 but for rounding
        self._arm_ends = ends
        arms = zip(experiment.arm_names, shares, strict=True)
        self._assigned = tuple(_taking_part(arm, "assigned", share, phase) for arm, share in arms)
        self._interleaved = _taking_part(INTERLEAVED, "assigned", 1.0, phase)
        is_lasting = not (experiment.targeting or experiment.has_moved_shares)
        # By identity: an arm that somebody else has assigned makes an equal one.
        self._lasting = frozenset(map(id, (*self._assigned, self._interleaved))) if is_lasting else frozenset()
        self._is_interleaving = experiment.kind == "interleaving"

    def assign(
        self, unit: str, now: float, attributes: Mapping[str, object] = NO_ATTRIBUTES, met: str | None = None
    ) -> Assignment:
        """Return what the experiment has for a user, who is given as text; see `assign`."""
        if self._forced and (forced := self._forced.get(unit)):
            return forced
        if not self.is_open(now):
            return _nobody("not running", self._phase)
        if met is not None:
            share = self._assigned[self.experiment.arm_names.index(met)].propensity
            return _taking_part(met, "met before", share, self._phase)
        if not self._is_for_all and (reason := self._stays_out(unit, attributes)):
            return _nobody(reason, self._phase)
        if self._is_interleaving:
            return self._interleaved
        return self._assigned[bisect_right(self._arm_ends, uniform(self._salt, unit))]

    def is_open(self, now: float) -> bool:
        """Return whether users take part at a moment (Unix seconds)."""
        return self._is_running and self._begins <= now < self._ends

    def holds(self, assignment: Assignment) -> bool:
        """Return whether what was said of a user who took part would surely be said again, maybe by another state.

        It is not sure where his attributes count, or what he met elsewhere.
        """
        return id(assignment) in self._lasting

    def _stays_out(self, unit: str, attributes: Mapping[str, object]) -> Reason | None:
        experiment = self.experiment
        targeting = experiment.targeting
        if targeting and any(attributes.get(name) not in wanted for name, wanted in targeting.items()):
            return "not targeted"
        if experiment.holdout and uniform("holdout", unit) < experiment.holdout:
            return "held out"
        layer, coverage = experiment.layer, experiment.phase.coverage
        if layer is not None and not layer.first <= uniform(f"layer:{layer.name}", unit) < layer.last:
            return "another layer slot"
        if coverage < 1 and uniform(f"{experiment.salt}:coverage", unit) >= coverage:
            return "not covered"
        return None


def assign_all(experiment: Experiment, user_ids: Sequence[ExternalId]) -> IntArray:
    """Return (n_users,) int32, the place of the arm that each user is drawn for, -1 for who does not take part.

    As `assign` for a running experiment, of users without attributes who met nothing before.
    """
    units = [str(user_id).encode() for user_id in user_ids]
    is_in: BoolArray = np.full(len(units), not experiment.targeting)
    if experiment.holdout:
        is_in &= _uniforms("holdout", units) >= experiment.holdout
    if (layer := experiment.layer) is not None:
        slots = _uniforms(f"layer:{layer.name}", units)
        is_in &= (slots >= layer.first) & (slots < layer.last)
    if experiment.phase.coverage < 1:
        is_in &= _uniforms(f"{experiment.salt}:coverage", units) < experiment.phase.coverage
    ends = np.fromiter(accumulate(experiment.phase.shares), dtype=np.float64)[:-1]
    arms = np.searchsorted(ends, _uniforms(f"{experiment.salt}:assign", units), side="right")
    return np.where(is_in, arms, -1).astype(np.int32)


def uniform(salt: str, unit: str) -> float:
    """Return a number in [0, 1) with 53 random bits, the same for the same salt and unit everywhere and for ever.

    (first 8 bytes of SHA-256(salt, unit separator, unit), big-endian, >> 11) / 2^53: no modulo, so no arm is favoured.
    """
    first: int = _FIRST_64_BITS(sha256(f"{salt}{_SEPARATOR}{unit}".encode()).digest())[0]
    return (first >> 11) * _TO_UNIT


@lru_cache(maxsize=1_000)
def _taking_part(arm: str, reason: Reason, share: float, phase: int) -> Assignment:
    """Return one and the same object for all users of an arm: it is asked for at every request."""
    return Assignment(arm, in_experiment=True, reason=reason, propensity=share, phase=phase)


@lru_cache(maxsize=1_000)
def _forced(arm: str, phase: int) -> Assignment:
    return Assignment(arm, in_experiment=False, reason="forced", propensity=1.0, phase=phase)


@lru_cache(maxsize=1_000)
def _nobody(reason: Reason, phase: int) -> Assignment:
    return Assignment(None, in_experiment=False, reason=reason, propensity=0.0, phase=phase)


def _uniforms(salt: str, units: Sequence[bytes]) -> NDArray[np.float64]:
    """Return (n,) float64: `uniform` of each."""
    prefix = sha256(f"{salt}{_SEPARATOR}".encode())
    digests = bytearray()
    for unit in units:
        hashed = prefix.copy()
        hashed.update(unit)
        digests += hashed.digest()[:8]
    drawn = np.frombuffer(bytes(digests), dtype=">u8").astype(np.uint64) >> np.uint64(11)
    return drawn.astype(np.float64) * _TO_UNIT
