"""`rec-engine experiments`: what is tried on users, how it stands, and what to do."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from cyclopts import App, Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rec_engine.cli_output import AsJson, print_json
from rec_engine.errors import DataError
from rec_engine.utils.console import say, show

if TYPE_CHECKING:
    from rec_engine.evaluation.ab_testing import ABTestManager
    from rec_engine.experiments.bandit_batches import BanditResult
    from rec_engine.experiments.definition import Experiment
    from rec_engine.experiments.list_preference import ListPreference
    from rec_engine.experiments.results import Comparison

STORE = "sqlite:///state/events.db"
MODEL_DIR = Path("models")

experiments_app = App(name="experiments", help="Create, start, stop and analyse A/B tests, and list them.")


@experiments_app.command
def create(  # noqa: PLR0913 - flags
    experiment_id: str,
    *,
    name: str | None = None,
    definition: Path | None = None,
    treatment_percentage: float | None = None,
    coverage: float | None = None,
    metrics: Annotated[list[str], Parameter(consume_multiple=True)] = [],  # noqa: B006 - read only
    store: str = STORE,
    model_dir: Path = MODEL_DIR,
) -> None:
    """Plan an experiment; nobody meets it before it is started.

    Args:
        experiment_id: letters, digits, dot, dash and underscore.
        name: for people; the id where there is none.
        definition: YAML or JSON with any field of an experiment, such as arms, guardrails and planned_users.
        treatment_percentage: share of its users that meets the treatment.
        coverage: share of all users that takes part.
        metrics: ctr, conversion_rate, revenue_per_user or engagement_time; the first one decides.
        store: event store of the service that runs it, sqlite:/// or postgresql://.
        model_dir: registry of that service, where the versions that arms name have to be; not looked at if it is
            somewhere else.
    """
    from rec_engine.experiments.proposal import Proposal

    fields = {
        "name": experiment_id,
        "reads_service": True,
        **({} if definition is None else _read(definition)),
        **({} if name is None else {"name": name}),
        **({} if coverage is None else {"coverage": coverage}),
        **({} if not metrics else {"target_metrics": metrics}),
        **({} if treatment_percentage is None else {"treatment_percentage": treatment_percentage}),
    }
    fields["experiment_id"] = experiment_id
    _check_versions(Proposal.of(**fields).experiment(0), model_dir)
    from rec_engine.evaluation.ab_testing import ABTestManager

    shown = _shown(store)
    with ABTestManager(store=store) as manager:  # which makes it, where the service has not begun yet
        made = manager.propose(fields)
    say(f"{made.experiment_id} is planned. Next: rec-engine experiments start {experiment_id} --store {shown}")


@experiments_app.command
def start(experiment_id: str, *, reason: str = "", store: str = STORE, model_dir: Path = MODEL_DIR) -> None:
    """Let users meet an experiment from now on; its metrics and arms stand from here.

    Args:
        experiment_id: of the experiment.
        reason: for the record.
        store: event store of the service that runs it.
        model_dir: as of `create`.
    """
    with _manager(store) as manager:
        _check_versions(manager.get_experiment(experiment_id), model_dir)
        manager.start_experiment(experiment_id, reason)
    say(f"{experiment_id} is running. Next: rec-engine experiments analyze {experiment_id} --store {_shown(store)}")


@experiments_app.command
def stop(experiment_id: str, *, reason: str = "", store: str = STORE) -> None:
    """End an experiment for good; its results stay.

    Args:
        experiment_id: of the experiment.
        reason: for the record.
        store: event store of the service that runs it.
    """
    with _manager(store) as manager:
        manager.stop_experiment(experiment_id, reason)
    say(f"{experiment_id} is stopped. Next: rec-engine experiments analyze {experiment_id} --store {_shown(store)}")


@experiments_app.command
def status(experiment_id: str, *, store: str = STORE, as_json: AsJson = False) -> None:
    """Print how an experiment stands, and who changed what, when and why.

    Args:
        experiment_id: of the experiment.
        store: event store of the service that runs it.
        as_json: print the experiment and its versions for programs.
    """
    from datetime import UTC, datetime

    with _manager(store) as manager:
        experiment, versions = manager.get_experiment(experiment_id), manager.history(experiment_id)
    if as_json:
        print_json({"experiment": experiment, "versions": versions})
        return
    shares = ", ".join(
        f"{arm} {share:.0%}" for arm, share in zip(experiment.arm_names, experiment.phase.shares, strict=True)
    )
    say(f"{experiment_id} ({experiment.name}) is {experiment.status}: {shares} of {experiment.phase.coverage:.0%}")
    table = _table(f"Versions of {experiment_id}", ("version", "when (UTC)", "what", "who", "why"))
    for each in versions:
        at = f"{datetime.fromtimestamp(each.timestamp, UTC):%Y-%m-%d %H:%M}"
        table.add_row(str(each.version), at, each.action, each.actor, each.reason)
    show(table)


@experiments_app.command
def analyze(
    experiment_id: str, *, store: str = STORE, output_file: Path | None = None, as_json: AsJson = False
) -> None:
    """Print what is known of an experiment, and what to do.

    Args:
        experiment_id: of the experiment.
        store: event store of the service that runs it.
        output_file: JSON with every figure, every look and every version.
        as_json: print what is known for programs.
    """
    from rec_engine.experiments.bandit_batches import BanditResult
    from rec_engine.experiments.list_preference import ListPreference

    with _manager(store) as manager:
        analysis = manager.results(experiment_id)
        exported = manager.export_experiment(experiment_id) if output_file else None
    if output_file:
        output_file.write_text(json.dumps(exported, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        print_json(analysis.as_dict())
        return
    if isinstance(analysis, ListPreference):
        show(preference_table(experiment_id, analysis))
    elif isinstance(analysis, BanditResult):
        show(bandit_table(experiment_id, analysis))
    else:
        show(comparison_table(experiment_id, analysis.comparisons))
    for sentence in analysis.health:
        say(sentence)
    found = analysis.recommendation
    say(f"{found.action}: {found.reason} {found.next_step}")
    if output_file:
        say(f"{output_file} holds every figure")


@experiments_app.command
def report(experiment_id: str, *, output: Path, users: Path | None = None, store: str = STORE) -> None:
    """Write a page of HTML: the verdict, effects now and over time, arms, sample ratio, health, segments.

    Args:
        experiment_id: of the experiment.
        output: the page; it needs nothing beside it.
        users: a table (Parquet, CSV, JSON lines) with `user_id` and attributes, for an exploratory look at who gains.
        store: event store of the service that runs it.
    """
    from rec_engine.data.tables import read_table

    attributes = None if users is None else read_table(users)
    with _manager(store) as manager:
        page = manager.report(experiment_id, attributes)
    output.write_text(page, encoding="utf-8")
    say(f"{output} holds the report")


@experiments_app.command(name="list")
def list_experiments(*, store: str = STORE, as_json: AsJson = False) -> None:
    """Print all experiments.

    Args:
        store: event store of the service that runs them.
        as_json: print a list for programs.
    """
    with _manager(store) as manager:
        found = manager.list_experiments()
    if as_json:
        print_json(found)
        return
    shown = _shown(store)
    if not found:
        say(f"{shown}: no experiment yet. Next: rec-engine experiments create NAME --store {shown}")
        return
    table = _table(f"Experiments in {shown}", ("experiment", "name", "status", "arms", "coverage", "decided by"))
    for each in found:
        primary = ", ".join(metric.name for metric in each.design.metrics if metric.role == "primary")
        coverage = f"{each.phase.coverage:.0%}"
        table.add_row(each.experiment_id, each.name, each.status, " ".join(each.arm_names), coverage, primary)
    show(table)


def show_demo(seed: int, n_users: int, output_file: Path | None, *, quietly: bool = False) -> None:
    """Print what five simulated experiments come to, quietly as JSON, and write that where a file is named."""
    from rec_engine.evaluation.ab_demo import demo_json, run_demo

    scenes, peeking = run_demo(seed, n_users)
    told = demo_json(seed, n_users, scenes, peeking)
    if output_file:
        output_file.write_text(told, encoding="utf-8")
    if quietly:
        sys.stdout.write(told)
        return
    for scene in scenes:
        found = scene.analysis.recommendation
        show(comparison_table(f"{scene.name}: {scene.truth}", scene.analysis.comparisons))
        say(f"{found.action}: {found.reason}\n")
    say(
        f"Peeking: {peeking.runs} experiments without any effect, each looked at {peeking.looks} times. Taken for one: "
        f"{peeking.naive_z:.0%} by a z-test on impressions, {peeking.by_user:.0%} by users but at a fixed 0.05, "
        f"{peeking.always_valid:.0%} by the p-value that holds at any time, {peeking.decided:.0%} by the verdict."
    )
    if output_file:
        say(f"{output_file} holds every figure")


def comparison_table(title: str, comparisons: "tuple[Comparison, ...]") -> Table:
    """Return effects with intervals and p-values; the verdict goes by those that hold over all looks."""
    columns = ("metric", "arm", "control", "treatment", "effect", "95% interval", "p at the end", "p at any time")
    table = _table(title, columns)
    for each in comparisons:
        low, high = each.relative_ci or (None, None)
        interval = f"[{_share(low)}, {_share(high)}]" if each.relative_ci else ""
        table.add_row(
            f"{each.metric} ({each.role})",
            each.arm,
            _figure(each.control),
            _figure(each.treatment),
            _share(each.relative),
            interval,
            _p(each.p_value),
            _p(each.p_value_always_valid),
        )
    return table


def preference_table(title: str, found: "ListPreference") -> Table:
    """Return which arm's items were chosen, with the interval that holds at any time."""
    table = _table(
        title, ("arms", "users", "lists", "chosen", "preference", "95% interval at any time", "p at any time")
    )
    mean, interval = found.preference.preference, found.cs
    table.add_row(
        " : ".join(found.arms),
        f"{found.users:,}",
        f"{found.lists:,}",
        " : ".join(f"{n:,}" for n in found.chosen),
        "" if mean is None else f"{mean:+.4f}",
        "" if interval is None else f"[{interval[0]:+.4f}, {interval[1]:+.4f}]",
        _p(found.p_value_always_valid),
    )
    return table


def bandit_table(title: str, found: "BanditResult") -> Table:
    """Return the arms with their shares, and intervals that hold in spite of these."""
    columns = ("arm", "share now", "users", "rewarded", "best with", f"{found.reward} less control's", "95% interval")
    table = _table(title, columns)
    for each in found.arms:
        off, interval = each.difference, each.difference.ci if each.difference else None
        table.add_row(
            each.arm,
            f"{each.share:.1%}",
            f"{each.users:,}",
            f"{each.rewarded:,}",
            f"{each.prob_best:.1%}",
            "" if off is None or off.difference is None else f"{off.difference:+.4f}",
            "" if interval is None else f"[{interval[0]:+.4f}, {interval[1]:+.4f}]",
        )
    return table


def _manager(store: str) -> "ABTestManager":
    """Open a store that is there: a slip of the pen in its name must not make another one.

    Raises:
        DataError: if there is none.
    """
    from rec_engine.data.database import no_log
    from rec_engine.data.schema import standing
    from rec_engine.evaluation.ab_testing import ABTestManager

    name, revision = standing(store)
    if revision is None:
        raise no_log(name)
    return ABTestManager(store=store)


def _shown(store: str) -> str:
    """Return a store's URL for people to read, without its password."""
    from rec_engine.data.database import shown

    return shown(store)


def _check_versions(experiment: "Experiment", model_dir: Path) -> None:
    from rec_engine.serving.arm_versions import check_versions

    if model_dir.is_dir():
        check_versions(experiment, model_dir)
    elif any(arm.configuration.model_version for arm in experiment.arms):
        say(f"{model_dir} is not here: whether the versions that arms name can be served is seen when they are")


def _read(path: Path) -> dict[str, object]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: {error}", hint="YAML or JSON is wanted") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: fields of an experiment are wanted", hint="docs/ab-testing.md shows one")
    return found


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column)
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "?" if value is None else f"{value:+.1%}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"  # noqa: PLR2004 - digits shown
