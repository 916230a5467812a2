"""What is recorded of users from Python: checked here, written to the log a moment later."""

import itertools
import math
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict, Unpack

from rec_engine.data.dataset import ExternalId
from rec_engine.data.experiment_log import Measure
from rec_engine.errors import DataError, ExperimentError, NotFoundError
from rec_engine.experiments.assignment import NO_ATTRIBUTES, Assignment
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.live_experiments import LiveExperiments

MAX_ID_LENGTH = 256
MAX_NAME_LENGTH = 100
FUTURE_SECONDS = 86_400
"""A clock that is ahead by more than this is not believed: what it says happens now."""


class When(TypedDict, total=False):
    """Which event it is, and when it happened.

    Attributes:
        event_id: the same id of a user twice is the same event; without it each one is another.
        timestamp: Unix seconds, now by default.
    """

    event_id: str
    timestamp: float


class Recording:
    """Takes exposures and measures for the experiments that there are.

    Args:
        live: the experiments.
    """

    def __init__(self, live: LiveExperiments) -> None:
        self._live = live
        self._prefix, self._numbers = uuid.uuid4().hex, itertools.count()

    def exposure(
        self,
        experiment_id: str,
        user_id: ExternalId,
        variant: str | None = None,
        timestamp: float | None = None,
        attributes: Mapping[str, object] = NO_ATTRIBUTES,
    ) -> Assignment:
        """Return what a user was assigned, after taking note of it where he takes part.

        Raises:
            DataError: if a value cannot be used.
            ExperimentError: if the experiment has not begun, or has ended, or is an interleaving.
            NotFoundError: if there is no such experiment or arm.
        """
        experiment, unit = self._open(experiment_id), checked_user_id(user_id)
        found = self._live.assign(experiment, unit, attributes)
        if variant is not None and found.in_experiment:
            share = experiment.phase.shares[_place(experiment, variant)]
            found = replace(found, arm=variant, propensity=share)
        self._live.expose(experiment, unit, found, self._moment(timestamp))
        return found

    def measure(self, experiment_id: str, user_id: ExternalId, name: str, value: float, **when: Unpack[When]) -> None:
        """Take note of something that adds to one of a user's totals.

        Raises:
            DataError: if a value cannot be used.
            ExperimentError: if the experiment has not begun, or has ended.
            NotFoundError: if there is no such experiment.
        """
        experiment, unit = self._open(experiment_id), checked_user_id(user_id)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"{name} {value!r}: a finite number is wanted", hint="leave out what is not known")
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            raise DataError(f"{name!r}: the name of a total has 1 to {MAX_NAME_LENGTH} characters")
        known, at = self._live.recorder.known, self._moment(when.get("timestamp"))
        event = when.get("event_id") or self.next_event_id()
        self._live.recorder.add(Measure(experiment.experiment_id, unit, event, name, float(value), at, known))

    def next_event_id(self) -> str:
        """Return an id that no other event has."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def _open(self, experiment_id: str) -> Experiment:
        experiment = self._live.lifecycle.get(experiment_id)
        if experiment.status in ("draft", "stopped"):
            raise ExperimentError(
                f"{experiment_id} is {experiment.status}: nothing is recorded for it",
                hint="start it first" if experiment.status == "draft" else "create another one",
            )
        if experiment.kind == "interleaving":
            raise ExperimentError(f"{experiment_id} is an interleaving: the service records what comes of its lists")
        return experiment

    def _moment(self, timestamp: float | None) -> int:
        now = self._live.clock()
        if timestamp is None:
            return int(now)
        if not math.isfinite(timestamp) or timestamp < 0:
            raise DataError(f"timestamp {timestamp!r}: Unix seconds are wanted")
        return int(timestamp if timestamp <= now + FUTURE_SECONDS else now)


def checked_user_id(user_id: ExternalId) -> str:
    """Return a user's id as text.

    Raises:
        DataError: if it is none.
    """
    is_integer = isinstance(user_id, int) and not isinstance(user_id, bool)
    if is_integer or (isinstance(user_id, str) and 0 < len(user_id) <= MAX_ID_LENGTH and "\0" not in user_id):
        return str(user_id)
    raise DataError(f"user_id {user_id!r}: an id is an integer or a text of 1 to {MAX_ID_LENGTH} characters")


def _place(experiment: Experiment, arm: str) -> int:
    if arm not in experiment.arm_names:
        raise NotFoundError(
            f"{experiment.experiment_id} has no arm {arm!r}", hint=f"one of {', '.join(experiment.arm_names)}"
        )
    return experiment.arm_names.index(arm)
