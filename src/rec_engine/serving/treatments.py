"""What experiments change of a user's answer: at every request, so from memory, and for most users from one look-up."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from rec_engine.data.dataset import ExternalId
from rec_engine.data.experiment_log import Record
from rec_engine.experiments.assignment import NO_ATTRIBUTES, Assignment, Draw
from rec_engine.experiments.definition import INTERLEAVED, ArmConfiguration, Experiment
from rec_engine.experiments.list_preference import team_label
from rec_engine.experiments.live_experiments import LiveExperiments
from rec_engine.serving.metrics import Series
from rec_engine.utils.config import RecommendationSettings

MAX_REMEMBERED = 500_000
"""Users whose treatment is remembered; some 50 MB."""

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a user's arms change of an answer.

    Attributes:
        settings: the `recommendations:` section as it is for him.
        label: "experiment/arm" of each, joined by a blank; None for who is in no experiment.
        key: what the answer depends on beside the service's own settings.
        use_reranking: whether the ranker may be used.
        follows_rules: whether the rules of the shop hold.
        model_version: that answers; None for the current one.
        to_note: experiments and what they had for him, as far as it may not have been noted before.
        rivals: the two arms that fill his lists by turns, each as it would be alone; none without an interleaving.
    """

    settings: RecommendationSettings
    label: str | None = None
    key: str = ""
    use_reranking: bool = True
    follows_rules: bool = True
    model_version: str | None = None
    to_note: tuple[tuple[Experiment, Assignment], ...] = field(default=())
    rivals: "tuple[Treatment, ...]" = ()


class Treatments:
    """Says of each user what his arms change, and takes note that he has met them.

    The work of an answer evicts all this from the processor's caches, so what counts is how little is touched: where
    neither time nor another state of the experiments can change it, a user's treatment is looked up as a whole.

    Args:
        live: the experiments.
        settings: the `recommendations:` section.
        clock: Unix seconds.
    """

    def __init__(self, live: LiveExperiments, settings: RecommendationSettings, clock: Callable[[], float]) -> None:
        self._live = live
        self._lifecycle = live.lifecycle
        self._settings = settings
        self._clock = clock
        self._none = Treatment(settings)
        self._standing = _Standing.at({}, clock())
        self._counted: Counter[Series] = Counter()
        self._lock = threading.Lock()

    def of(self, user_id: ExternalId, attributes: Callable[[], Mapping[str, object]]) -> Treatment:
        """Return what a user's arms change; nothing is written, and nothing is read but memory.

        Args:
            user_id: who asks.
            attributes: gives his attributes; only asked where an experiment is for some of them.
        """
        standing = self._standing
        if self._lifecycle.by_id is not standing.by_id:
            standing = self._follow()
        if not standing.experiments:
            return self._none
        now = self._clock()
        if not standing.since <= now < standing.until:
            standing = self._follow()
        return standing.remembered.get(user_id) or self._found(standing, user_id, now, attributes)

    def met(self, user_id: ExternalId, treatment: Treatment) -> None:
        """Take note that a user has met his arms, if that was not known: the recorder's thread does the work.

        Where there is no room for it any more, it is dropped and counted, and taken note of when he comes again.
        """
        if treatment.to_note:
            recorder, now = self._live.recorder, int(self._clock())
            recorder.add_later(partial(self._noted, self._standing, user_id, treatment, now, recorder.known))

    def take(self) -> Mapping[Series, float]:
        """Return how many users have met which arm since it was asked last, for telemetry."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        return counted

    def _follow(self) -> "_Standing":
        self._standing = _Standing.at(self._lifecycle.by_id, self._clock())
        return self._standing

    def _noted(
        self, standing: "_Standing", user_id: ExternalId, treatment: Treatment, timestamp: int, known: int
    ) -> list[Record]:
        """Return what is to be written of a user who met his arms."""
        unit, found = str(user_id), list[Record]()
        for experiment, assignment in treatment.to_note:
            exposure = self._live.exposure(experiment, unit, assignment, timestamp, known)
            if exposure is not None:
                found.append(exposure)
                with self._lock:
                    self._counted["experiment_exposures_total", experiment.experiment_id, assignment.arm or ""] += 1
        standing.remember(user_id, treatment)
        return found

    def _found(
        self,
        standing: "_Standing",
        user_id: ExternalId,
        now: float,
        attributes: Callable[[], Mapping[str, object]],
    ) -> Treatment:
        unit, given = str(user_id), []
        if standing.is_lasting:
            for draw in standing.draws:
                given.append(draw.assign(unit, now))  # noqa: PERF401 - a comprehension is one more piece of cold code
        else:
            for each in standing.experiments:
                given.append(self._live.assign(each, unit, attributes() if each.targeting else NO_ATTRIBUTES))
        kept = standing.by_identity.get(tuple(map(id, given)))
        found = kept[1] if kept else self._made(standing, given)
        if not found.to_note:
            standing.remember(user_id, found)
        return found

    def _made(self, standing: "_Standing", given: list[Assignment]) -> Treatment:
        """Return the treatment that comes of assignments, one for all users of the same arms."""
        taken = tuple(assignment if assignment.arm is not None else None for assignment in given)
        found = standing.by_assignments.get(taken)
        if found is None:
            met = tuple((each, found) for each, found in zip(standing.experiments, taken, strict=True) if found)
            found = standing.by_assignments[taken] = self._treatment(met) if met else self._none
        standing.by_identity[tuple(map(id, given))] = given, found
        return found

    def _treatment(self, met: tuple[tuple[Experiment, Assignment], ...]) -> Treatment:
        key = "\n".join(f"{each.experiment_id}/{assignment.arm}/{each.version}" for each, assignment in met)
        label = " ".join(f"{each.experiment_id}/{assignment.arm}" for each, assignment in met)
        chosen = [each.configuration(found.arm or "") for each, found in met if not _is_interleaved(each, found)]
        drafting = next((each for each, found in met if _is_interleaved(each, found)), None)
        if drafting is None:
            return self._changed(chosen, label, key, met)
        first, second = (
            self._changed([*chosen, arm.configuration], team_label(drafting, arm.name), f"{key}\n{arm.name}", met)
            for arm in drafting.arms
        )
        return replace(first, label=label, key=key, rivals=(first, second))

    def _changed(
        self,
        chosen: list[ArmConfiguration],
        label: str,
        key: str,
        met: tuple[tuple[Experiment, Assignment], ...],
    ) -> Treatment:
        update: dict[str, object] = {}
        for configuration in chosen:
            update |= {name: getattr(configuration, name) for name in _SETTINGS & configuration.varied}
        if caps := _first(chosen, lambda each: each.caps):
            update["caps"] = {name: cap for name, cap in caps.items() if name in self._settings.caps}
        return Treatment(
            settings=self._settings.model_copy(update=update) if update else self._settings,
            label=label,
            key=key,
            use_reranking=all(each.use_reranking is not False for each in chosen),
            follows_rules=all(each.follows_rules is not False for each in chosen),
            model_version=_first(chosen, lambda each: each.model_version),
            to_note=met,
        )


@dataclass(frozen=True, slots=True)
class _Standing:
    """The experiments as they stand from one moment to another, and what is remembered as long as they do.

    Attributes:
        by_id: all of them.
        experiments: those that users meet.
        since: Unix seconds, the last moment so far at which one began or ended by itself.
        until: Unix seconds, the next one.
        is_lasting: whether a user has the same treatment all the while: it does not go by his attributes, nor by what
            he has met elsewhere.
        draws: of these experiments.
        by_assignments: the treatment that comes of what they have for a user; None of those that he is not in.
        by_identity: the same by the identity of these very assignments, which is looked up with less; it holds them,
            so that no others can have it.
        remembered: treatments of users of whom there is nothing to note any more.
        noted: the same treatments without what there was to note, by their keys.
    """

    by_id: Mapping[str, Experiment]
    experiments: tuple[Experiment, ...]
    since: float
    until: float
    is_lasting: bool
    draws: tuple[Draw, ...]
    by_assignments: dict[tuple[Assignment | None, ...], Treatment] = field(default_factory=dict)
    by_identity: dict[tuple[int, ...], tuple[list[Assignment], Treatment]] = field(default_factory=dict)
    remembered: dict[ExternalId, Treatment] = field(default_factory=dict)
    noted: dict[str, Treatment] = field(default_factory=dict)

    @classmethod
    def at(cls, by_id: Mapping[str, Experiment], now: float) -> "_Standing":
        served = tuple(each for each in by_id.values() if is_served(each))
        edges = [edge for each in served for edge in (each.starts_at, each.ends_at) if edge is not None]
        return cls(
            by_id=by_id,
            experiments=served,
            since=max((edge for edge in edges if edge <= now), default=-math.inf),
            until=min((edge for edge in edges if edge > now), default=math.inf),
            is_lasting=not any(each.targeting or each.has_moved_shares for each in served),
            draws=tuple(map(Draw, served)),
        )

    def remember(self, user_id: ExternalId, treatment: Treatment) -> None:
        if not self.is_lasting:
            return
        noted = self.noted.get(treatment.key) or self.noted.setdefault(treatment.key, replace(treatment, to_note=()))
        if len(self.remembered) >= MAX_REMEMBERED:
            self.remembered.clear()
        self.remembered[user_id] = noted


def is_served(experiment: Experiment) -> bool:
    """Return whether the service's users meet an experiment."""
    return experiment.status == "running" and experiment.reads_service


def _is_interleaved(experiment: Experiment, assignment: Assignment) -> bool:
    return experiment.kind == "interleaving" and assignment.arm == INTERLEAVED


_SETTINGS = frozenset({"diversity", "exploration"})


def _first(configurations: list[ArmConfiguration], value: Callable[[ArmConfiguration], _Found | None]) -> _Found | None:
    return next((found for each in configurations if (found := value(each)) is not None), None)
