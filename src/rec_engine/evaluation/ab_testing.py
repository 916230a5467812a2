"""Experiments from Python, with or without a service: a front door to the room of experiments."""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any, Self, Unpack

import polars as pl

from rec_engine.data.dataset import ExternalId
from rec_engine.data.experiment_log import ExperimentVersion, TakenLook
from rec_engine.errors import DataError, ExperimentError, NotFoundError
from rec_engine.experiments.assignment import NO_ATTRIBUTES, Assignment
from rec_engine.experiments.checked import checked_moment, checked_user_id, checked_value
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.design import Metric
from rec_engine.experiments.effects_over_time import effects_over_time
from rec_engine.experiments.live_experiments import LiveExperiments
from rec_engine.experiments.looking import Results, results_of
from rec_engine.experiments.own_store import IN_MEMORY, end, own_store
from rec_engine.experiments.planning import Plan, plan
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.recording import FULL_SECONDS, Recording, When
from rec_engine.experiments.report_page import report_page
from rec_engine.experiments.results import Analysis, Comparison
from rec_engine.experiments.standard_metrics import CLICKS, CONVERSIONS, ENGAGEMENT_SECONDS, REVENUE
from rec_engine.experiments.user_segments import segments_of


class ABTestManager:
    """Plans, runs and analyses experiments.

    Recording takes microseconds; a thread of its own writes it to the store, and whoever analyses, exports or closes
    waits until it is there. Several processes, and a service, may use the same store.

    Args:
        min_sample_size: users an arm below which nothing is decided, of experiments that say nothing else.
        significance_level: probability of a false alarm, of experiments that say nothing else.
        store: `sqlite:///path`, `postgresql://user:password@host/name`, or ":memory:" for one that ends with this
            manager.
        clock: Unix seconds.

    Attributes:
        store_url: where everything is kept.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be reached.
    """

    def __init__(
        self,
        min_sample_size: int = 1_000,
        significance_level: float = 0.05,
        store: str = IN_MEMORY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._defaults = {"min_sample_size": min_sample_size, "significance_level": significance_level}
        self._clock = clock
        self.store_url, directory = (store, None) if store != IN_MEMORY else own_store()
        self._live = LiveExperiments(self.store_url, clock, full_seconds=FULL_SECONDS)
        self._end = weakref.finalize(self, end, self._live, directory)
        self._recording = Recording(self._live)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what was recorded, then end. A manager that nobody closes does so when it is forgotten."""
        self._end()

    def flush(self) -> None:
        """Return when everything that was recorded before is on disk.

        Raises:
            StoreError: if it cannot be written; it is still waiting then.
        """
        self._live.recorder.flush()

    @property
    def n_dropped(self) -> int:
        """Records that were lost because the store could not take them."""
        return self._live.recorder.n_dropped

    def create_experiment(  # noqa: PLR0913 - the brief's
        self,
        experiment_id: str,
        name: str,
        description: str = "",
        treatment_percentage: float | None = None,
        min_sample_size: int | None = None,
        target_metrics: Sequence[str | Metric] | None = None,
        start_date: date | str | int | None = None,
        end_date: date | str | int | None = None,
        **further: object,
    ) -> Experiment:
        """Return a new experiment, which waits for its start.

        Args:
            experiment_id: letters, digits, dot, dash and underscore.
            name: for people.
            description: for people.
            treatment_percentage: share of the experiment's users that meets the treatment; half of them by default.
            min_sample_size: users an arm below which nothing is decided.
            target_metrics: names of standard metrics (ctr, conversion_rate, revenue_per_user, engagement_time) or
                metrics of one's own; the first one decides. All four by default.
            start_date: before which nobody takes part.
            end_date: from which nobody takes part any more.
            further: any other field of a `Proposal`, such as arms, guardrails, coverage, layer or planned_users.

        Raises:
            DataError: if a value cannot be used, or the experiment could meet the users of another one in its layer.
            ExperimentError: if there is one of this id.
            NotFoundError: if there is no such metric.
        """
        given = {
            "experiment_id": experiment_id,
            "name": name,
            "description": description,
            "treatment_percentage": treatment_percentage,
            "min_sample_size": min_sample_size,
            "target_metrics": (target_metrics,) if isinstance(target_metrics, str) else target_metrics,
            "start_date": start_date,
            "end_date": end_date,
        }
        return self.propose(given | further)

    def propose(self, fields: Mapping[str, object]) -> Experiment:
        """Return a new experiment that has these fields of a `Proposal`; see `create_experiment`."""
        given = {name: value for name, value in fields.items() if value is not None}
        proposal = Proposal.of(**{**self._defaults, **given})
        return self._live.lifecycle.create(proposal.experiment(self._now()))

    def power_analysis(self, experiment_id: str, past_days: int = 14) -> Plan:
        """Return how many users and days an experiment takes, by what users have done in the days before now.

        Raises:
            DataError: if too little was done in them to plan with.
            NotFoundError: if there is no such experiment.
            StoreError: if the database fails.
        """
        self.flush()
        return plan(self.store_url, self.get_experiment(experiment_id), self._now(), past_days)

    def start_experiment(self, experiment_id: str, reason: str = "") -> Experiment:
        """Return an experiment that users meet from now on; what it is to find cannot be changed any more.

        Raises:
            ExperimentError: if it has been started before.
            NotFoundError: if there is none of this id.
        """
        return self._live.lifecycle.start(experiment_id, reason=reason)

    def pause_experiment(self, experiment_id: str, reason: str = "") -> Experiment:
        """Return an experiment that no further user meets for the time being."""
        return self._live.lifecycle.pause(experiment_id, reason=reason)

    def resume_experiment(self, experiment_id: str, reason: str = "") -> Experiment:
        """Return an experiment that goes on."""
        return self._live.lifecycle.resume(experiment_id, reason=reason)

    def stop_experiment(self, experiment_id: str, reason: str = "") -> Experiment:
        """Return an experiment that has ended for good; its results stay."""
        self.flush()
        return self._live.lifecycle.stop(experiment_id, reason=reason)

    def update_experiment_allocation(
        self,
        experiment_id: str,
        treatment_percentage: float | None = None,
        *,
        coverage: float | None = None,
        shares: Sequence[float] | None = None,
        reason: str = "",
    ) -> Experiment:
        """Return an experiment with another allocation; who met an arm stays in it.

        Args:
            experiment_id: of the experiment.
            treatment_percentage: share of the experiment's users that meets the treatment, where there are two arms.
            coverage: share of all users that takes part; of a running experiment it can only grow.
            shares: of the arms, in their order.
            reason: why, for the record.

        Raises:
            DataError: if the coverage would shrink, or shares are none.
            ExperimentError: if it has ended.
        """
        if treatment_percentage is not None:
            treated = checked_value("treatment_percentage", treatment_percentage)
            shares = (1 - treated, treated)
        changed = self._live.lifecycle.allocate(experiment_id, shares=shares, coverage=coverage, reason=reason)
        self._live.refresh()
        return changed

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment as it is now.

        Raises:
            NotFoundError: if there is none of this id.
        """
        self._live.refresh()
        return self._live.lifecycle.get(experiment_id)

    def list_experiments(self, status: str | None = None) -> list[Experiment]:
        """Return all experiments, or those of a status: draft, running, paused or stopped."""
        self._live.refresh()
        return [each for each in self._live.lifecycle.by_id.values() if status in (None, each.status)]

    def assign(
        self, experiment_id: str, user_id: ExternalId, attributes: Mapping[str, object] | None = None
    ) -> Assignment:
        """Return what an experiment has for a user, and why; nothing is written.

        Args:
            experiment_id: of the experiment.
            user_id: 123 and "123" are the same user.
            attributes: of the user, where the experiment has a `targeting`.

        Raises:
            DataError: if that is no id of a user.
            NotFoundError: if there is no such experiment.
        """
        experiment = self._live.lifecycle.get(experiment_id)
        return self._live.assign(experiment, checked_user_id(user_id), attributes or NO_ATTRIBUTES)

    def get_variant(
        self, experiment_id: str, user_id: ExternalId, attributes: Mapping[str, object] | None = None
    ) -> str:
        """Return the arm that a user is to be shown: the control for who does not take part. Nothing is written."""
        found = self.assign(experiment_id, user_id, attributes)
        return found.arm or self._live.lifecycle.get(experiment_id).arm_names[0]

    def record_exposure(
        self,
        experiment_id: str,
        user_id: ExternalId,
        variant: str | None = None,
        *,
        timestamp: float | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> Assignment:
        """Return what a user was assigned, after taking note that he met it; the first time counts.

        Args:
            experiment_id: of the experiment.
            user_id: of the user; who does not take part is not recorded.
            variant: the arm, where somebody else assigns; a user who meets two is left out of results, and counted.
            timestamp: Unix seconds, now by default; up to a day before the start it is taken for the start.
            attributes: of the user, where the experiment has a `targeting`.

        Raises:
            DataError: if a value cannot be used.
            ExperimentError: if the experiment has not begun, or has ended.
            NotFoundError: if there is no such experiment or arm.
        """
        return self._recording.exposure(experiment_id, user_id, variant, timestamp, attributes or NO_ATTRIBUTES)

    def record_impression(
        self,
        experiment_id: str,
        user_id: ExternalId,
        variant: str | None = None,
        *,
        attributes: Mapping[str, object] | None = None,
        event_id: ExternalId | None = None,
        timestamp: float | None = None,
    ) -> Assignment:
        """Return what a user was assigned, after taking note that he was shown something: his exposure, if the first.

        Arguments and errors as of `record_exposure` and `record_click`.
        """
        of_user = attributes or NO_ATTRIBUTES
        return self._recording.impression(experiment_id, user_id, variant, of_user, event_id, timestamp)

    def record_click(self, experiment_id: str, user_id: ExternalId, **when: Unpack[When]) -> None:
        """Take note of a click.

        Args:
            experiment_id: of the experiment.
            user_id: of the user. His events belong to the arm that he met first; what he does before is kept as his
                past.
            when: `event_id`, under which the same event is counted once, however often it is sent; `timestamp` in Unix
                seconds, now by default.

        Raises:
            DataError: if a value cannot be used.
            ExperimentError: if the experiment has not begun, or has ended.
            NotFoundError: if there is no such experiment.
        """
        self._recording.measure(experiment_id, user_id, CLICKS, 1.0, **when)

    def record_conversion(
        self, experiment_id: str, user_id: ExternalId, revenue: float | None = None, **when: Unpack[When]
    ) -> None:
        """Take note of a purchase and of what it brought; a refund is a negative revenue. See `record_click`."""
        if revenue is not None:
            self._recording.measure(experiment_id, user_id, REVENUE, revenue, **when)
        self._recording.measure(experiment_id, user_id, CONVERSIONS, 1.0, **when)

    def record_engagement(
        self, experiment_id: str, user_id: ExternalId, engagement_time: float, **when: Unpack[When]
    ) -> None:
        """Take note of time that a user spent, in seconds. See `record_click`."""
        if checked_value("engagement_time", engagement_time) < 0:
            raise DataError(f"engagement_time {engagement_time:g} is below 0 seconds")
        self._recording.measure(experiment_id, user_id, ENGAGEMENT_SECONDS, engagement_time, **when)

    def record_custom_metric(
        self, experiment_id: str, user_id: ExternalId, metric_name: str, value: float, **when: Unpack[When]
    ) -> None:
        """Add to a total of one's own, which a metric has as numerator or denominator. See `record_click`."""
        self._recording.measure(experiment_id, user_id, metric_name, value, **when)

    def analyze(self, experiment_id: str, as_of: float | None = None, users: pl.DataFrame | None = None) -> Analysis:
        """Return what is known of an A/B test, as an object; see `analyze_experiment`, for other kinds `results`."""
        found = self.results(experiment_id, as_of, users)
        if not isinstance(found, Analysis):
            raise ExperimentError(f"{experiment_id} is of kind {found.kind}, not an A/B test", hint="see results()")
        return found

    def results(self, experiment_id: str, as_of: float | None = None, users: pl.DataFrame | None = None) -> Results:
        """Return what is known of an experiment, as an object of its kind; see `analyze_experiment`."""
        self.flush()
        until = min(checked_moment(as_of, self._now()), self._now())
        segments = () if users is None else segments_of(users)
        return results_of(self._live.log, self.get_experiment(experiment_id), until, segments, is_kept=as_of is None)

    def analyze_experiment(
        self, experiment_id: str, as_of: float | None = None, users: pl.DataFrame | None = None
    ) -> dict[str, Any]:
        """Return what is known of an experiment: effects, intervals, health, and under `recommendations` what to do.

        `["recommendations"]["action"]` is always there: deploy_treatment, keep_control, no_clear_winner,
        investigate_further or continue_running for an A/B test; docs/ab-testing.md names those of other kinds. To look
        at any time costs nothing: planned looks are kept, and share the significance level.

        Args:
            experiment_id: of the experiment.
            as_of: Unix seconds of a moment in the past to look back at.
            users: `user_id` and attributes, a row a user, for an exploratory look at who gains (`segments`).

        Raises:
            DataError: if a value cannot be used.
            NotFoundError: if there is no such experiment.
            StoreError: if the database fails.
        """
        experiment = self.get_experiment(experiment_id)
        about = experiment.model_dump(include={"experiment_id", "name", "status", "version"})
        about |= {"config_hash": experiment.config_hash, "n_dropped": self.n_dropped}
        return about | self.results(experiment_id, as_of, users).as_dict()

    def report(self, experiment_id: str, users: pl.DataFrame | None = None) -> str:
        """Return a page of HTML that stands by itself: verdict, effects now and by day, arms, health, segments."""
        analysis, now = self.analyze(experiment_id, users=users), self._now()
        experiment = self.get_experiment(experiment_id)
        return report_page(experiment, analysis, effects_over_time(self._live.log, experiment, now).moments, now)

    def analyze_metric(self, experiment_id: str, metric: str) -> list[Comparison]:
        """Return the comparisons of one metric with the control, one for each other arm.

        Raises:
            ExperimentError: if it is no A/B test.
            NotFoundError: if the experiment or the metric does not exist.
        """
        found = [each for each in self.analyze(experiment_id).comparisons if each.metric == metric]
        if not found:
            raise NotFoundError(f"{experiment_id} has no metric {metric!r}", hint="get_experiment() names its metrics")
        return found

    def history(self, experiment_id: str) -> list[ExperimentVersion]:
        """Return every version of an experiment, with who made it and why, the first one first."""
        return self._live.lifecycle.history(experiment_id)

    def export_experiment(self, experiment_id: str) -> dict[str, Any]:
        """Return as JSON can hold it all but users: definition, who changed what, looks, and results."""
        return {
            "experiment": self.get_experiment(experiment_id).model_dump(mode="json"),
            "history": [asdict(version) for version in self.history(experiment_id)],
            "looks": [asdict(taken) for taken in self.get_timeseries(experiment_id)],
            "results": self.analyze_experiment(experiment_id),
        }

    def get_timeseries(self, experiment_id: str) -> list[TakenLook]:
        """Return what each planned look found, as it was found, the first one first."""
        return self._live.log.looks(self.get_experiment(experiment_id).experiment_id)

    def _now(self) -> int:
        return int(self._clock())
