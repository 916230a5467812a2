"""The report of the closed loop: a table for the terminal, every figure as JSON, and a page with plots."""

import json
import math
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from html import escape
from multiprocessing import get_context
from pathlib import Path

from rec_engine.evaluation.plots import bars, curve, intervals
from rec_engine.evaluation.statistics import Estimate
from rec_engine.pipeline.closed_loop import FIRST, SMALL, Loop, LoopSettings, Version, run_loop
from rec_engine.pipeline.fit_report import STYLE
from rec_engine.pipeline.loop_experiment import ALIKE, DIFFERENT, Finding
from rec_engine.pipeline.loop_figures import COMPARED, LoopFigures, figures, regret_gain
from rec_engine.pipeline.loop_people import ENGINE, ORACLE, POPULARITY, RANDOM
from rec_engine.pipeline.loop_rankers import CORRECTED, UNCORRECTED
from rec_engine.pipeline.loop_trial_figures import TrialFigures, trial_figures
from rec_engine.utils.config import ModelConfig

TITLE = "Does the engine learn?"
SHOWN = (
    "engine, by the truth",
    FIRST,
    POPULARITY,
    RANDOM,
    "best page",
    "regret",
    "clicks that happened",
    "offline NDCG@10",
    "promoted",
)
"""Columns of the table."""


@dataclass(frozen=True, slots=True)
class LoopReport:
    """A loop, and one without exploration beside it.

    Attributes:
        settings: of the loop.
        versions: that it trained.
        figures: what came of it.
        without_exploration: what came of the same people and the same world without it; None where there was none.
        exploration_gain: the regret of the last round less that there, for the same people; None likewise. Below 0
            exploration pays.
        trial: what came of trying one more version; None where none was.
        seconds: of all.
    """

    settings: LoopSettings
    versions: tuple[Version, ...]
    figures: LoopFigures
    without_exploration: LoopFigures | None
    exploration_gain: Estimate | None
    trial: TrialFigures | None
    seconds: float


def compare_loops(settings: LoopSettings, config: ModelConfig = SMALL) -> LoopReport:
    """Return what comes of a loop, and of one without exploration where it has any, in a process of its own beside it.

    Logs and versions are not kept.
    """
    started = time.monotonic()
    # Spawned, for a fork of a process whose libraries have threads may hang.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        plain = pool.submit(_loop, replace(settings, exploration=0.0), config) if settings.exploration else None
        loop = _loop(settings, config)
        report = report_on(settings, loop, plain.result() if plain else None)
    return replace(report, seconds=time.monotonic() - started)


def report_on(settings: LoopSettings, loop: Loop, plain: Loop | None) -> LoopReport:
    """Return the report of a loop, and of one without exploration beside it."""
    last = settings.n_rounds
    return LoopReport(
        settings=settings,
        versions=loop.versions,
        figures=figures(loop.answers),
        without_exploration=figures(plain.answers) if plain else None,
        exploration_gain=(
            regret_gain(loop.answers.filter(round=last), plain.answers.filter(round=last)) if plain else None
        ),
        trial=trial_figures(loop.trial) if loop.trial else None,
        seconds=loop.seconds + (plain.seconds if plain else 0.0),
    )


def table(report: LoopReport) -> list[str]:
    """Return the lines of the report for a terminal."""
    lines = [f"{'round':>5}  {'answers':>7}  {'users':>5}  " + "  ".join(f"{name:<20}" for name in SHOWN)]
    for each, version in zip(report.figures.rounds, report.versions, strict=True):
        values = (
            _told(each.worth[ENGINE]),
            *(f"{each.worth[name].mean:.3f}" for name in (FIRST, POPULARITY, RANDOM, ORACLE)),
            _told(each.regret[ENGINE]),
            _told(each.clicks),
            f"{version.ndcg:.3f}{', re-ranked' * version.is_reranked}",
            "yes" if version.is_promoted else "no",
        )
        cells = "  ".join(f"{value:<20}" for value in values)
        lines.append(f"{each.number:>5}  {each.n_answers:>7,}  {each.n_users:>5,}  {cells}".rstrip())
    return lines + [f"{name}: {value}" for name, value in answers(report).items()]


def answers(report: LoopReport) -> dict[str, str]:
    """Return question to answer, for people."""
    found, last = report.figures, report.figures.rounds[-1]
    new, arrived = found.newcomers, found.arrivals
    told = {
        "Does it learn? Regret of the last round less that of the first": _told(found.learned),
        "Does retraining pay? Clicks an answer in the last round more than by the first version": _told(
            last.beyond_first
        ),
        "More than what is most popular, in the last round": _told(last.beyond_popularity),
        f"Newcomers ({found.n_newcomers:,}), until their first click": (
            f"{_told(new[ENGINE])} clicks an answer, popularity {new[POPULARITY].mean:.2f}, "
            f"the best page {new[ORACLE].mean:.2f}"
        ),
        f"Regret of users who joined meanwhile ({arrived.n_users:,})": (
            f"{_told(arrived.regret_of_new_users)}, of the others {_told(arrived.regret_of_old_users)}"
        ),
        "New items are worth, an answer": _reached(arrived.new_items),
        "Items that were there": _reached(arrived.old_items),
        "New items in the last round": (
            f"{last.new_shown.mean:.1%} of what is shown, {last.new_there.mean:.1%} of what there is"
        ),
    }
    if report.exploration_gain is not None:
        told["Does exploration pay? Regret of the last round less that without"] = _told(report.exploration_gain)
    return told | (tried(report.trial) if report.trial else {})


def tried(trial: TrialFigures) -> dict[str, str]:
    """Return the same of the trial."""
    told, forecast = dict[str, str](), trial.forecast
    if trial.correction is None:
        told["Does correction for position pay?"] = "too little was clicked to learn from"
    else:
        found = trial.correction
        told["Does correction for position pay? Rank correlation of the re-ranker with what attracts people"] = (
            f"{_told(found.correlation[CORRECTED])} with, {_told(found.correlation[UNCORRECTED])} without: "
            f"{_told(found.correlation_gain)} more"
        )
        told["The same, regret of the pages that it would show"] = (
            f"{_told(found.regret[CORRECTED])} with, {_told(found.regret[UNCORRECTED])} without: "
            f"{_told(found.regret_gain)}"
        )
    told["Does an A/B test find a spoilt version? Clicks an item of the other more"] = (
        f"{_found(trial.findings[DIFFERENT])}; by the truth {trial.true_difference:+.1%}"
    )
    told["Does an A/A test find nothing?"] = f"{_found(trial.findings[ALIKE])}; by the truth +0.0%"
    told["What does the next version earn, exploring much? Clicks at the first place, by the log of the one before"] = (
        f"{'refused: ' + '; '.join(forecast.refusals) if forecast.estimate is None else _told(forecast.estimate)}; "
        f"by the truth there {_told(forecast.by_truth)}; in the time after, exploring less, {_told(forecast.earned)}"
    )
    return told


def write_loop(report: LoopReport, directory: Path) -> list[Path]:
    """Write loop.json and loop.html, and return both."""
    directory.mkdir(parents=True, exist_ok=True)
    data, page = directory / "loop.json", directory / "loop.html"
    data.write_text(json.dumps(_finite(asdict(report)), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    page.write_text(_page(report), encoding="utf-8")
    return [data, page]


def _loop(settings: LoopSettings, config: ModelConfig) -> Loop:
    with tempfile.TemporaryDirectory(prefix="rec-engine-loop-") as directory:
        return run_loop(settings, Path(directory), config)


def _page(report: LoopReport) -> str:
    rounds, settings = report.figures.rounds, report.settings
    head = "".join(
        f"<th>{name}</th>"
        for name in (
            "round",
            "answers",
            "users",
            *COMPARED,
            ORACLE,
            "regret",
            "clicks that happened",
            "offline NDCG@10",
        )
    )
    rows = "".join(
        f"<tr><td>{each.number}</td><td>{each.n_answers:,}</td><td>{each.n_users:,}</td>"
        + "".join(f"<td>{each.worth[name].mean:.3f}</td>" for name in (*COMPARED, ORACLE))
        + f"<td>{_told(each.regret[ENGINE])}</td><td>{_told(each.clicks)}</td>"
        + f"<td>{version.ndcg:.3f}{', re-ranked' * version.is_reranked}</td></tr>"
        for each, version in zip(rounds, report.versions, strict=True)
    )
    numbers = [float(each.number) for each in rounds]
    regret = {name: (numbers, [each.regret[name].mean for each in rounds]) for name in (ENGINE, FIRST, POPULARITY)}
    by_round = {f"round {each.number}": {name: each.worth[name] for name in reversed(COMPARED)} for each in rounds}
    found = "".join(f"<li>{escape(name)}: {escape(value)}</li>" for name, value in answers(report).items())
    gates = "".join(f"<li>version {each.number}: {escape(each.gate)}</li>" for each in report.versions)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{TITLE}</title><style>{STYLE}</style>"
        f"<h1>{TITLE}</h1><p>{settings.n_users:,} users, {settings.n_items:,} items, {settings.past_days:g} days "
        f"without an engine, then {settings.n_rounds} rounds of {settings.round_days:g} days; exploration "
        f"{settings.exploration:g}, seed {settings.seed}. Expected clicks an answer by the truth; means over users, "
        f"with 95% intervals.</p><table><tr>{head}</tr>{rows}</table><ul>{found}</ul>"
        f"<h2>Regret</h2>{curve(regret, 'round', 'regret an answer, expected clicks')}"
        f"<h2>Worth</h2>{intervals(by_round, 'expected clicks an answer', ours=(FIRST, ENGINE))}"
        f"<h2>Newcomers</h2>{bars(report.figures.newcomers, 'expected clicks an answer', ours=(ENGINE,))}"
        f"<h2>What the gate said</h2><ul>{gates}</ul></html>\n"
    )


def _reached(worth: Mapping[str, Estimate]) -> str:
    return f"{_told(worth[ENGINE])} clicks, on the best page {worth[ORACLE].mean:.3f}"


def _found(finding: Finding) -> str:
    if finding.relative is None or finding.p_value is None:
        return f"nothing can be said of {finding.users} users"
    low, high = ("?" if end is None else f"{end:+.1%}" for end in (finding.low, finding.high))
    verdict = "found" if finding.is_found else "no difference found"
    return f"{verdict}, {finding.relative:+.1%} [{low}, {high}], p = {finding.p_value:.3g}, {finding.users} users"


def _told(value: Estimate) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _finite(value: object) -> object:
    """Return the same with None in the place of what JSON has no number for."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
