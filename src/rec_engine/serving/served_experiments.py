"""Experiments in the service: what a user's arms change of his answer, and who has met which of them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import polars as pl

from rec_engine.data.dataset import ExternalId
from rec_engine.errors import ConflictError, DataError, ExperimentError, StoreError
from rec_engine.experiments.assignment import NO_ATTRIBUTES, Assignment
from rec_engine.experiments.bandit_batches import is_batch_over, next_batch
from rec_engine.experiments.definition import INTERLEAVED, ArmConfiguration, Experiment
from rec_engine.experiments.effects_over_time import EffectsOverTime, effects_over_time, moments_of_looks
from rec_engine.experiments.list_preference import team_label
from rec_engine.experiments.live_experiments import LiveExperiments
from rec_engine.experiments.looking import Results, look, results_of
from rec_engine.experiments.planning import Plan, plan
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.report_page import report_page
from rec_engine.experiments.results import Analysis
from rec_engine.experiments.user_segments import segments_of
from rec_engine.serving.arm_versions import check_versions
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

GUARD_SECONDS = 300.0
"""How often guardrails are looked at."""
BATCH_POLL_SECONDS = 5.0
"""How often bandits are looked at whose batch may be over."""
AUTOMATIC = "the service"

_Found = TypeVar("_Found")
logger = get_logger(__name__)


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
        met: experiments and what they had for him.
        rivals: the two arms that fill his lists by turns, each as it would be alone; none without an interleaving.
    """

    settings: RecommendationSettings
    label: str | None = None
    key: str = ""
    use_reranking: bool = True
    follows_rules: bool = True
    model_version: str | None = None
    met: tuple[tuple[Experiment, Assignment], ...] = field(default=())
    rivals: "tuple[Treatment, ...]" = ()


class ServedExperiments:
    """What the service does with the experiments of its log.

    Args:
        url: of the log.
        settings: the `recommendations:` section.
        clock: Unix seconds.
        model_dir: the registry whose versions arms may serve; None where there is none.
    """

    def __init__(
        self,
        url: str,
        settings: RecommendationSettings,
        clock: Callable[[], float] = time.time,
        model_dir: Path | None = None,
    ) -> None:
        self._model_dir = model_dir
        self._settings = settings
        self._none = Treatment(settings)
        self._clock = clock
        self._live = LiveExperiments(url, clock)
        self._seen: Mapping[str, Experiment] = {}
        self._open: tuple[Experiment, ...] = ()
        self._treatments: dict[tuple[str | None, ...], tuple[list[Assignment | None], Treatment]] = {}
        self._guard = BackgroundLoop("experiment guard", self._watch_guardrails, first_seconds=GUARD_SECONDS)
        self._guard.start()
        self._batches = BackgroundLoop("bandit batches", self._begin_batches, first_seconds=BATCH_POLL_SECONDS)
        self._batches.start()

    @property
    def n_dropped(self) -> int:
        """Exposures that never reached the log."""
        return self._live.recorder.n_dropped

    def close(self) -> None:
        """Write what is waiting, then end."""
        self._guard.close()
        self._batches.close()
        try:
            self._live.close()
        except StoreError as error:
            logger.warning("exposures are lost: %s", error)

    def treatment(self, user_id: ExternalId, attributes: Callable[[], Mapping[str, object]]) -> Treatment:
        """Return what a user's arms change; nothing is written, and nothing is read but memory.

        Args:
            user_id: who asks.
            attributes: gives his attributes; only asked where an experiment is for some of them.
        """
        if self._live.lifecycle.by_id is not self._seen:
            self._follow()
        if not self._open:
            return self._none
        assign, unit = self._live.assign, str(user_id)
        given = [assign(each, unit, attributes() if each.targeting else NO_ATTRIBUTES) for each in self._open]
        arms = tuple([assignment.arm for assignment in given])
        taken = [assignment if assignment.arm is not None else None for assignment in given]
        kept = self._treatments.get(arms)
        if kept is None or kept[0] != taken:
            met = tuple((each, found) for each, found in zip(self._open, taken, strict=True) if found is not None)
            kept = self._treatments[arms] = taken, self._treatment(met) if met else self._none
        return kept[1]

    def expose(self, user_id: ExternalId, treatment: Treatment) -> list[tuple[str, str]]:
        """Take note of what a user has met; return experiment and arm of what was not known here before."""
        now, known = int(self._clock()), []
        for experiment, assignment in treatment.met:
            if self._live.expose(experiment, str(user_id), assignment, now) and assignment.arm:
                known.append((experiment.experiment_id, assignment.arm))
        return known

    def all(self) -> list[Experiment]:
        """Return all experiments, by id."""
        return list(self._live.lifecycle.by_id.values())

    def get(self, experiment_id: str) -> Experiment:
        """Return an experiment.

        Raises:
            NotFoundError: if there is none of this id.
        """
        return self._live.lifecycle.get(experiment_id)

    def assignment(self, experiment_id: str, user_id: ExternalId, attributes: Mapping[str, object]) -> Assignment:
        """Return what an experiment has for a user.

        Raises:
            NotFoundError: if there is none of this id.
        """
        return self._live.assign(self.get(experiment_id), user_id, attributes)

    async def create(self, proposal: Proposal) -> Experiment:
        """Return once a new experiment is on disk.

        Raises:
            DataError: if it could not be served, or clashes with another one.
            ExperimentError: if there is one of this id.
        """
        experiment = self._served(proposal)
        await asyncio.to_thread(check_versions, experiment, self._model_dir)
        return await asyncio.to_thread(self._live.lifecycle.create, experiment)

    async def redefine(self, experiment_id: str, proposal: Proposal) -> Experiment:
        """Return once a draft is on disk as it is to be now.

        Raises:
            DataError: if it could not be served, or clashes with another one.
            ExperimentError: if it has begun.
            NotFoundError: if there is none of this id.
        """
        experiment = self._served(proposal.model_copy(update={"experiment_id": experiment_id}))
        await asyncio.to_thread(check_versions, experiment, self._model_dir)
        return await asyncio.to_thread(self._live.lifecycle.redefine, experiment)

    async def step(self, experiment_id: str, action: str, reason: str) -> Experiment:
        """Return once an experiment is started, paused, resumed or stopped, on disk; every worker knows in a second.

        Raises:
            DataError: if it is to start and an arm's version could not be served.
            ExperimentError: if it is in no state for that.
            NotFoundError: if there is none of this id.
        """
        if action == "start":
            await asyncio.to_thread(check_versions, self.get(experiment_id), self._model_dir)
        steps = self._live.lifecycle
        do = {"start": steps.start, "pause": steps.pause, "resume": steps.resume, "stop": steps.stop}[action]
        return await asyncio.to_thread(do, experiment_id, "", reason)

    async def ramp(
        self, experiment_id: str, coverage: float | None, shares: tuple[float, ...] | None, reason: str
    ) -> Experiment:
        """Return once another allocation is on disk.

        Raises:
            DataError: if users would lose their arm, or shares are none.
            ExperimentError: if the experiment has ended.
            NotFoundError: if there is none of this id.
        """

        def change() -> Experiment:
            changed = self._live.lifecycle.allocate(experiment_id, shares=shares, coverage=coverage, reason=reason)
            self._live.refresh()
            return changed

        return await asyncio.to_thread(change)

    async def results(self, experiment_id: str, users: pl.DataFrame) -> Results:
        """Return what is known of an experiment now.

        Args:
            experiment_id: of the experiment.
            users: `user_id` and attributes, a row a user, for the segments.

        Raises:
            NotFoundError: if there is none of this id.
            StoreError: if the log cannot be read.
        """
        return await asyncio.to_thread(self._results, self.get(experiment_id).experiment_id, users)

    def _results(self, experiment_id: str, users: pl.DataFrame) -> Results:
        self._live.recorder.flush()
        self._live.refresh()
        now = int(self._clock())
        return results_of(self._live.log, self.get(experiment_id), now, segments_of(users))

    async def report(self, experiment_id: str, users: pl.DataFrame) -> str:
        """Return a page of HTML on an A/B test, with what its planned looks found; see `results`.

        Raises:
            DataError: if it is of another kind.
        """
        analysis = await self.results(experiment_id, users)
        if not isinstance(analysis, Analysis):
            raise DataError(f"{experiment_id} is of kind {analysis.kind}: pages are made of A/B tests")
        looks = await asyncio.to_thread(self._live.log.looks, experiment_id)
        return report_page(self.get(experiment_id), analysis, moments_of_looks(looks), int(self._clock()))

    async def effects(self, experiment_id: str) -> EffectsOverTime:
        """Return what was known of an A/B test at its planned looks and at the end of each day."""
        experiment = self.get(experiment_id)
        if experiment.kind != "ab":
            raise DataError(f"{experiment_id} is of kind {experiment.kind}: effects are those of A/B tests")
        return await asyncio.to_thread(effects_over_time, self._live.log, experiment, int(self._clock()))

    async def plan(self, proposal: Proposal, past_days: int) -> Plan:
        """Return what an experiment would take; see `planning.plan`. Nothing is created."""
        draft = self._served(proposal)
        return await asyncio.to_thread(plan, self._live.log.url, draft, int(self._clock()), past_days)

    def _look(self, experiment_id: str, users: pl.DataFrame | None = None) -> Analysis:
        self._live.recorder.flush()
        self._live.refresh()
        segments = () if users is None else segments_of(users)
        return look(self._live.log, self.get(experiment_id), int(self._clock()), segments)

    def _served(self, proposal: Proposal) -> Experiment:
        experiment = proposal.model_copy(update={"reads_service": True}).experiment(int(self._clock()))
        for arm in experiment.arms:
            if unknown := sorted((arm.configuration.caps or {}).keys() - self._settings.caps.keys()):
                raise DataError(
                    f"arm {arm.name}: recommendations.caps has no {unknown[0]!r}",
                    hint="name it in the service's settings, if only with a cap that holds nothing back",
                )
        return experiment

    def model_versions(self) -> frozenset[str]:
        """Return the versions that arms of running experiments serve."""
        running = [each for each in self.all() if each.status == "running" and each.reads_service]
        named = (arm.configuration.model_version for each in running for arm in each.arms)
        return frozenset(version for version in named if version is not None)

    def _follow(self) -> None:
        self._seen = self._live.lifecycle.by_id
        self._open = tuple(each for each in self._seen.values() if _is_served(each))
        self._treatments = {}

    def _treatment(self, met: tuple[tuple[Experiment, Assignment], ...]) -> Treatment:
        key = "\n".join(f"{each.experiment_id}/{assignment.arm}/{each.version}" for each, assignment in met)
        label = " ".join(f"{each.experiment_id}/{assignment.arm}" for each, assignment in met)
        chosen = [each.configuration(found.arm or "") for each, found in met if not _is_interleaved(each, found)]
        drafting = next((each for each, found in met if _is_interleaved(each, found)), None)
        if drafting is None:
            return self._of(chosen, label, key, met)
        first, second = (
            self._of([*chosen, arm.configuration], team_label(drafting, arm.name), f"{key}\n{arm.name}", met)
            for arm in drafting.arms
        )
        return replace(first, label=label, key=key, rivals=(first, second))

    def _of(
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
            settings=self._settings.model_copy(update=update),
            label=label,
            key=key,
            use_reranking=all(each.use_reranking is not False for each in chosen),
            follows_rules=all(each.follows_rules is not False for each in chosen),
            model_version=_first(chosen, lambda each: each.model_version),
            met=met,
        )

    def _begin_batches(self) -> float:
        now = self._clock()
        for experiment in self.all():
            if not is_batch_over(experiment, now):
                continue
            try:
                self._live.recorder.flush()
                next_batch(self._live.lifecycle, self._live.log.url, experiment, int(now), AUTOMATIC)
            except (StoreError, ConflictError) as error:  # another worker has begun it, or the log is away
                logger.info("no batch of %s is begun: %s", experiment.experiment_id, error)
        return BATCH_POLL_SECONDS

    def _watch_guardrails(self) -> float:
        tests = [each for each in self.all() if _is_served(each) and each.kind == "ab"]
        guarded = [each for each in tests if each.design.has_guardrails]
        try:
            # Sooner than it comes again itself: of several workers, whichever comes first after that.
            turn_seconds = int(0.9 * GUARD_SECONDS)
            if not guarded or not self._live.log.take_turn("guardrails", int(self._clock()), turn_seconds):
                return GUARD_SECONDS
        except StoreError as error:
            logger.warning("guardrails are not looked at: %s", error)
            return GUARD_SECONDS
        for experiment in guarded:
            try:
                found = self._look(experiment.experiment_id)
                if is_guardrail_harmed(experiment, found):
                    self._live.lifecycle.stop(experiment.experiment_id, AUTOMATIC, found.recommendation.reason)
                    logger.warning("%s is stopped: %s", experiment.experiment_id, found.recommendation.reason)
            except (StoreError, ExperimentError) as error:  # somebody has stopped it, or the log is away
                logger.warning("the guardrails of %s are not looked at: %s", experiment.experiment_id, error)
        return GUARD_SECONDS


def _is_served(experiment: Experiment) -> bool:
    return experiment.status == "running" and experiment.reads_service


def is_guardrail_harmed(experiment: Experiment, found: Analysis) -> bool:
    """Return whether an experiment is to be stopped: a guardrail is worse than its margin at any time."""
    if found.recommendation.action != "keep_control":
        return False
    metrics = {metric.name: metric for metric in experiment.design.metrics}
    for each in found.comparisons:
        metric = metrics[each.metric]
        if each.role != "guardrail" or each.cs is None or each.control is None:
            continue
        low, high = each.cs if metric.higher_is_better else (-each.cs[1], -each.cs[0])
        if high < -metric.margin * abs(each.control):
            return True
    return False


def _is_interleaved(experiment: Experiment, assignment: Assignment) -> bool:
    return experiment.kind == "interleaving" and assignment.arm == INTERLEAVED


_SETTINGS = frozenset({"diversity", "exploration"})


def _first(configurations: list[ArmConfiguration], value: Callable[[ArmConfiguration], _Found | None]) -> _Found | None:
    return next((found for each in configurations if (found := value(each)) is not None), None)
