"""What is recorded of users from Python: checked here, written to the log a moment later."""

import itertools
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict, Unpack

from rec_engine.data.dataset import ExternalId
from rec_engine.data.experiment_log import Measure
from rec_engine.errors import DataError, ExperimentError, NotFoundError
from rec_engine.experiments.assignment import NO_ATTRIBUTES, Assignment
from rec_engine.experiments.checked import (
    checked_event_id,
    checked_moment,
    checked_name,
    checked_user_id,
    checked_value,
)
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.live_experiments import LiveExperiments
from rec_engine.experiments.standard_metrics import IMPRESSIONS

MAX_EARLY_SECONDS = 86_400
"""How far a clock may be behind: an exposure before the start by less counts from the start."""

FULL_SECONDS = 5.0
"""How long whoever records waits for the writer, where he is faster, before his record is dropped."""


class When(TypedDict, total=False):
    """Which event it is, and when it happened.

    Attributes:
        event_id: the same id of a user twice is the same event, of each total by itself; by default each is another.
        timestamp: Unix seconds, now by default.
    """

    event_id: ExternalId
    timestamp: float


class Recording:
    """Takes exposures and measures for the experiments that there are.

    Args:
        live: the experiments.
    """

    def __init__(self, live: LiveExperiments) -> None:
        self._live = live
        self._prefix, self._numbers = f"{secrets.token_urlsafe(8)}-", itertools.count()  # no other event has their id

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
        at = checked_moment(timestamp, self._live.clock())
        return self._expose(experiment, unit, variant, at, attributes)

    def impression(
        self,
        experiment_id: str,
        user_id: ExternalId,
        variant: str | None,
        attributes: Mapping[str, object],
        event_id: ExternalId | None,
        timestamp: float | None,
    ) -> Assignment:
        """Return what a user was assigned, after taking note of it and of an impression; or of neither, if one fails.

        What `exposure` and `measure` do, but each thing that both do is done once: it is what is called most.
        """
        experiment, unit = self._open(experiment_id), checked_user_id(user_id)
        at = checked_moment(timestamp, self._live.clock())
        shown = self._measured(experiment, unit, IMPRESSIONS, 1.0, at, event_id)
        found = self._expose(experiment, unit, variant, at, attributes)
        self._live.recorder.add(shown)
        return found

    def measure(self, experiment_id: str, user_id: ExternalId, name: str, value: float, **when: Unpack[When]) -> None:
        """Take note of something that adds to one of a user's totals.

        Raises:
            DataError: if a value cannot be used.
            ExperimentError: if the experiment has not begun, or has ended.
            NotFoundError: if there is no such experiment.
        """
        experiment, unit = self._open(experiment_id), checked_user_id(user_id)
        at = checked_moment(when.get("timestamp"), self._live.clock())
        number, total = checked_value(name, value), checked_name(name)
        self._live.recorder.add(self._measured(experiment, unit, total, number, at, when.get("event_id")))

    def _measured(
        self, experiment: Experiment, unit: str, total: str, number: float, at: int, given: ExternalId | None
    ) -> Measure:
        # The same id may be given to a click and to the purchase after it, or to an impression and a click.
        event = f"{self._prefix}{next(self._numbers):x}" if given is None else f"{total} {checked_event_id(given)}"
        return Measure(experiment.experiment_id, unit, event, total, number, at, self._live.recorder.known)

    def _expose(
        self, experiment: Experiment, unit: str, variant: str | None, at: int, attributes: Mapping[str, object]
    ) -> Assignment:
        found = self._live.assign(experiment, unit, attributes)
        if variant is not None and found.in_experiment:
            share = experiment.phase.shares[_place(experiment, variant)]
            found = replace(found, arm=variant, propensity=share)
        self._live.expose(experiment, unit, found, _first_met(experiment, at))
        return found

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


def _first_met(experiment: Experiment, at: int) -> int:
    """Return when a user met an experiment; not before there was one."""
    started = experiment.started_at or 0
    if at < started - MAX_EARLY_SECONDS:
        raise DataError(
            f"timestamp {at}: {experiment.experiment_id} was started only at {started}",
            hint="nobody meets an experiment before its start; give Unix seconds of his first exposure",
        )
    return max(at, started)


def _place(experiment: Experiment, arm: str) -> int:
    if arm not in experiment.arm_names:
        raise NotFoundError(
            f"{experiment.experiment_id} has no arm {arm!r}", hint=f"one of {', '.join(experiment.arm_names)}"
        )
    return experiment.arm_names.index(arm)
