"""Experiments in the service: what a user's arms change of his answer, and who has met which of them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from rec_engine.data.dataset import ExternalId
from rec_engine.errors import ConflictError, DataError, ExperimentError, StoreError
from rec_engine.experiments.assignment import Assignment
from rec_engine.experiments.bandit_batches import is_batch_over, next_batch
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.effects_over_time import EffectsOverTime, effects_over_time, moments_of_looks
from rec_engine.experiments.live_experiments import LiveExperiments
from rec_engine.experiments.looking import Results, look, results_of
from rec_engine.experiments.planning import Plan, plan
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.report_page import report_page
from rec_engine.experiments.results import Analysis
from rec_engine.experiments.user_segments import segments_of
from rec_engine.serving.arm_versions import check_versions
from rec_engine.serving.treatments import Treatments, is_served
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

GUARD_SECONDS = 300.0
"""How often guardrails are looked at."""
BATCH_POLL_SECONDS = 5.0
"""How often bandits are looked at whose batch may be over."""
AUTOMATIC = "the service"

logger = get_logger(__name__)


class ServedExperiments:
    """What the service does with the experiments of its log.

    Args:
        url: of the log.
        settings: the `recommendations:` section.
        clock: Unix seconds.
        model_dir: the registry whose versions arms may serve; None where there is none.

    Attributes:
        treatments: what they change of each user's answers.
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
        self._clock = clock
        self._live = LiveExperiments(url, clock)
        self.treatments = Treatments(self._live, settings, clock)
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
        tests = [each for each in self.all() if is_served(each) and each.kind == "ab"]
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
