"""What was known of an effect at moments of an experiment: at its planned looks, and by day."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from rec_engine.data.experiment_log import ExperimentLog, TakenLook
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.looking import look, what_is_missing
from rec_engine.experiments.measuring import DAY_SECONDS, begins_at
from rec_engine.experiments.results import Comparison

MAX_MOMENTS = 14
"""Each of them is measured as if it were now."""
_COMPARISONS: TypeAdapter[tuple[Comparison, ...]] = TypeAdapter(tuple[Comparison, ...])


@dataclass(frozen=True, slots=True)
class Moment:
    """What was known at a moment.

    Attributes:
        timestamp: Unix seconds.
        comparisons: as they were then.
        is_look: whether it was a planned look, which the verdict rests on.
    """

    timestamp: int
    comparisons: tuple[Comparison, ...]
    is_look: bool


@dataclass(frozen=True, slots=True)
class EffectsOverTime:
    """What was known at the moments of an experiment.

    Attributes:
        moments: its planned looks, and the ends of its days.
        missing: why its days are not among them; None where they are.
    """

    moments: list[Moment]
    missing: str | None = None


def moments_of_looks(looks: Iterable[TakenLook]) -> list[Moment]:
    """Return what the planned looks found, as they found it."""
    return [
        Moment(each.timestamp, _COMPARISONS.validate_python(json.loads(each.result)["comparisons"]), is_look=True)
        for each in looks
    ]


def effects_over_time(log: ExperimentLog, experiment: Experiment, until: int) -> EffectsOverTime:
    """Return what the planned looks found, and what was known of the end of each day.

    An experiment of whose log something was removed has its looks only: its days would be measured by what is left.

    Raises:
        StoreError: if the database fails.
    """
    looks = moments_of_looks(log.looks(experiment.experiment_id))
    if missing := what_is_missing(log, experiment, until):
        return EffectsOverTime(looks, missing)
    return EffectsOverTime(looks + moments_by_day(log, experiment, until))


def moments_by_day(log: ExperimentLog, experiment: Experiment, until: int) -> list[Moment]:
    """Return what is known of the end of each day, MAX_MOMENTS of them at most; no planned look is taken.

    Raises:
        StoreError: if the database fails.
    """
    until = experiment.measured_until(until)
    return [
        Moment(at, look(log, experiment, at, is_kept=False).comparisons, is_look=False)
        for at in _ends_of_days(begins_at(experiment, until), until)
    ]


def _ends_of_days(started_at: int, until: int) -> Sequence[int]:
    days = max(1, (until - started_at) // DAY_SECONDS)
    step = -(-days // MAX_MOMENTS) * DAY_SECONDS
    return range(started_at + step, until + 1, step)
