"""A look at an experiment: measured, analysed, and kept, so that every later look knows what was spent before it."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime

import polars as pl

from rec_engine.data.experiment_log import ExperimentLog, TakenLook
from rec_engine.errors import ConflictError, ExperimentError
from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.bandit_batches import BanditResult, bandit_result
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.list_preference import ListPreference, list_preference
from rec_engine.experiments.measuring import begins_at, measure, reads_impressions
from rec_engine.experiments.results import Analysis, Look

MAX_TRIES = 5
Results = Analysis | ListPreference | BanditResult
"""What is known of an experiment, by its kind."""


def results_of(
    log: ExperimentLog,
    experiment: Experiment,
    until: int,
    segments: Iterable[tuple[str, pl.DataFrame]] = (),
    *,
    is_kept: bool = True,
) -> Results:
    """Return what is known of an experiment at a moment, by the analysis of its kind; arguments as of `look`.

    Raises:
        ExperimentError: if what it is measured by, events or what was shown, was removed from the log since.
        StoreError: if the database fails.
    """
    if missing := what_is_missing(log, experiment, until):
        raise ExperimentError(
            missing, hint="what its planned looks found stays in the table experiment_looks of the store"
        )
    if experiment.kind == "interleaving":
        return list_preference(log.url, experiment, until)
    if experiment.kind == "bandit":
        return bandit_result(log.url, experiment, until)
    return look(log, experiment, until, segments, is_kept=is_kept)


def what_is_missing(log: ExperimentLog, experiment: Experiment, until: int) -> str | None:
    """Return why an experiment cannot be measured any more; None while the log has all that it is measured by.

    Raises:
        StoreError: if the database fails.
    """
    pruned = log.pruned_before(with_impressions=reads_impressions(experiment))
    if pruned <= begins_at(experiment, until):
        return None
    return (
        f"{experiment.experiment_id} cannot be measured any more: what happened before "
        f"{datetime.fromtimestamp(pruned, tz=UTC):%Y-%m-%d %H:%M} UTC was removed from the log"
    )


def look(
    log: ExperimentLog,
    experiment: Experiment,
    until: int,
    segments: Iterable[tuple[str, pl.DataFrame]] = (),
    *,
    is_kept: bool = True,
) -> Analysis:
    """Return what is known of an A/B test at a moment.

    Where it is a planned look, it is kept. Earlier looks are taken as they were found, not measured anew. A look back
    takes none: it says what was known then, and does not try at which moment there would have been something to find.

    Args:
        log: of the experiments.
        experiment: as it is now.
        until: Unix seconds up to which is measured.
        segments: as of `measure`.
        is_kept: False for a look back, which is not among those that were planned.

    Raises:
        ExperimentError: if it is no A/B test.
        StoreError: if the database fails.
    """
    measured = measure(log.url, experiment, until, segments)
    for _ in range(MAX_TRIES):
        # All of them, and not those until now: another worker's clock may be ahead.
        past = [each for each in log.looks(experiment.experiment_id) if is_kept or each.timestamp <= until]
        looks = [Look.model_validate_json(each.statistics) for each in past]
        may_look = is_kept and experiment.started_at is not None
        analysis = analyze(
            experiment.design,
            measured,
            looks,
            is_final=has_run_out(experiment, until),
            may_look=may_look,
            is_stopped=experiment.stopped_at is not None and until >= experiment.stopped_at,
        )
        if analysis.look is None:
            return analysis
        result = json.dumps(analysis.as_dict() | {"config_hash": experiment.config_hash}, allow_nan=False)
        taken = TakenLook(
            experiment.experiment_id,
            len(past) + 1,
            until,
            experiment.version,
            analysis.look.model_dump_json(),
            result,
        )
        try:
            log.add_look(taken)
        except ConflictError:
            continue  # somebody else has looked meanwhile: with his look among the past ones, again
        return analysis
    raise ConflictError(f"{experiment.experiment_id} is looked at too often at once", hint="look again later")


def has_run_out(experiment: Experiment, until: int) -> bool:
    """Return whether an experiment has ended as planned. One that was stopped before may owe its end to its results."""
    end, stopped = experiment.ends_at, experiment.stopped_at
    return end is not None and until >= end and (stopped is None or stopped >= end)
