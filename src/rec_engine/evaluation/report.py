"""The quality report of a training run: report.html for people, metrics.json for machines, both of the same figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from rec_engine.data.profile import DataProfile
from rec_engine.evaluation import plots
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import Evaluation
from rec_engine.evaluation.leaks import LeakCheck
from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.report_files import METRICS, REPORT
from rec_engine.evaluation.slices import SliceScore
from rec_engine.evaluation.statistics import Estimate, bootstrap_mean, paired_bootstrap

PRIMARY = "ndcg@10"
SHOWN = ("ndcg@10", "hit_rate@10", "recall@20", "coverage@10")
BEYOND = ("diversity@10", "miscalibration@10", "popularity_lift@10")
MAX_IMPORTANCES = 20


@dataclass(frozen=True, slots=True)
class SourceRecall:
    """What one source of candidates contributes.

    Attributes:
        name: of the source; the last row is all of them together.
        n_offered: candidates a request, on average.
        recall: share of the targets that it offers, the mean over users.
        alone: share that no other source offers.
    """

    name: str
    n_offered: float
    recall: float
    alone: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How probable the ranker says a click is, and how often it comes: one entry a bin, ascending."""

    predicted: list[float]
    observed: list[float]
    n_candidates: list[int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A model's figures beside those of the model that is served.

    Attributes:
        name: of the model.
        metrics: mean over users, with its interval.
        catalogue: figures over all lists.
        difference: of the served model over this one, in PRIMARY; None for the served model itself.
        gain: the same, relative, in PRIMARY; None for the served model itself.
        fit_seconds: tuning and fitting.
        seconds: to recommend to everybody.
    """

    name: str
    metrics: dict[str, Estimate]
    catalogue: dict[str, float]
    difference: Estimate | None
    gain: Estimate | None
    fit_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What report.html and metrics.json both say as it was found.

    Attributes:
        dataset: its name.
        version: of the model.
        created_at: when training began.
        split: how the parts were cut.
        split_fingerprint: SHA-256 of them.
        n_rows_by_part: rows of train, validation and test.
        measured_on: name of the task.
        sources: recall of the candidates.
        slices: parts of the targets.
        epochs: of the towers.
        objective: of the ranker; empty without one.
        importances: feature to share of the ranker's gain, the largest first.
        reliability: of the ranker's probabilities; None without a ranker.
        leaks: what the leak detector saw.
        seconds_by_stage: what it cost.
        peak_mib: of memory, so far.
    """

    dataset: str
    version: str
    created_at: datetime
    split: str
    split_fingerprint: str
    n_rows_by_part: dict[str, int]
    measured_on: str
    sources: list[SourceRecall]
    slices: list[SliceScore]
    epochs: tuple[EpochRecord, ...]
    objective: str
    importances: dict[str, float]
    reliability: Reliability | None
    leaks: list[LeakCheck]
    seconds_by_stage: dict[str, float]
    peak_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings(Account):
    """Everything that a training run found out about its model; the report is made of it.

    Attributes:
        profile: of the data.
        evaluations: baselines first, then the towers alone and, with a ranker, the whole path.
        own: names of the last ones: the towers alone and, with a ranker, the whole path.
        beyond: model to metric to (n_users,) values.
    """

    profile: DataProfile
    evaluations: list[Evaluation]
    own: tuple[str, ...]
    beyond: Mapping[str, Mapping[str, DoubleArray]]


@validated(frozen=True, kw_only=True, config=ConfigDict(ser_json_inf_nan="null"))
class Metrics(Account):
    """metrics.json: what of the findings are figures; nan is null."""

    n_users: int
    n_cold_users: int
    n_unreachable_targets: int
    verdict: str
    models: list[Judgement]


def write_report(findings: Findings, directory: Path) -> str:
    """Write report.html and metrics.json into a directory and return the verdict, a sentence or two."""
    measured = _metrics(findings)
    text = TypeAdapter(Metrics).dump_json(measured, indent=2)
    (directory / METRICS).write_bytes(text + b"\n")
    environment = Environment(
        loader=PackageLoader("rec_engine.evaluation", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        findings=findings,
        measured=measured,
        shown=SHOWN,
        beyond=BEYOND,
        primary=PRIMARY,
        plots=_plots(findings, measured),
        groups=list(dict.fromkeys(row.group for row in findings.slices)),
        worries=[leak for leak in findings.leaks if leak.found],
    )
    (directory / REPORT).write_text(page, encoding="utf-8")
    return measured.verdict


def verdict(models: Sequence[Judgement], own: Sequence[str], *, is_tested: bool, n_unreachable_targets: int) -> str:
    """Return whether the neural model earns its keep on this data, in words: beside the best baseline, tuned.

    Args:
        models: every model, the served one last.
        own: names of the towers alone and, with a ranker, of the whole path.
        is_tested: whether the figures are of a part on which nothing was chosen.
        n_unreachable_targets: targets that were left out, as their users had met them before.
    """
    others = [model for model in models if model.name not in own]
    served = models[-1]
    if not others or not np.isfinite(served.metrics[PRIMARY].mean):
        if n_unreachable_targets:
            return (
                f"Nothing was measured: all of the {n_unreachable_targets:,} targets are items that their users had "
                "met before. If they are to be found again, set data.repeat_items: true."
            )
        return "Nothing was measured: no user has enough interactions to hold one out."
    best = max(others, key=lambda model: (np.nan_to_num(model.metrics[PRIMARY].mean), model.name))
    difference, gain = best.difference, best.gain
    if difference is None or gain is None or not np.isfinite(difference.low):
        return f"It cannot be told from so few users whether {served.name} is better than {best.name}."
    size = f"{gain.mean:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}] NDCG@10"
    if not np.isfinite(gain.low):
        size = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] NDCG@10"
    if not is_tested:
        return (
            f"Nothing was kept for testing, so that it cannot be told whether the neural model earns its keep: "
            f"{served.name} reaches {size} beside {best.name}, but on what its own settings were chosen on."
        )
    judgement = {
        1: "The neural model earns its keep on this data",
        0: "It is not settled that the neural model earns its keep on this data",
        -1: "The neural model does not earn its keep on this data",
    }[int(difference.low > 0) - int(difference.high < 0)]
    text = f"{judgement}: {served.name} reaches {size} beside {best.name}, the best tuned baseline."
    alone, reference = models[-len(own)].metrics[PRIMARY].mean, best.metrics[PRIMARY].mean
    if len(own) > 1 and reference > 0:
        text += f" The towers alone reach {alone / reference - 1:+.1%}."
    return text


def _metrics(findings: Findings) -> Metrics:
    served = findings.evaluations[-1]
    models = [
        _judgement(evaluation, served, findings.beyond.get(evaluation.name, {})) for evaluation in findings.evaluations
    ]
    return Metrics(
        **{field.name: getattr(findings, field.name) for field in fields(Account)},
        n_users=len(served.user_codes),
        n_cold_users=served.n_cold_users,
        n_unreachable_targets=served.n_unreachable_targets,
        verdict=verdict(
            models,
            findings.own,
            is_tested=findings.n_rows_by_part["test"] > 0,
            n_unreachable_targets=served.n_unreachable_targets,
        ),
        models=models,
    )


def _judgement(evaluation: Evaluation, served: Evaluation, beyond: Mapping[str, DoubleArray]) -> Judgement:
    paired = None
    if evaluation is not served:
        paired = paired_bootstrap(served.per_user[PRIMARY], evaluation.per_user[PRIMARY])
    return Judgement(
        name=evaluation.name,
        metrics={metric: bootstrap_mean(values) for metric, values in {**evaluation.per_user, **beyond}.items()},
        catalogue=evaluation.catalogue,
        difference=paired.absolute if paired else None,
        gain=paired.relative if paired else None,
        fit_seconds=evaluation.fit_seconds,
        seconds=evaluation.seconds,
    )


def _plots(findings: Findings, measured: Metrics) -> dict[str, str]:
    """Return SVG by name; a plot that there is nothing for is missing."""
    drawn = {
        "models": plots.bars(
            {model.name: model.metrics[PRIMARY] for model in measured.models}, "NDCG@10", ours=findings.own
        ),
        "histories": plots.histogram(findings.profile.history_lengths, "interactions of a user"),
        "items": plots.histogram(findings.profile.item_counts, "interactions of an item"),
        "time": plots.over_time(findings.profile.years, "year"),
    }
    if findings.sources:
        recall = {source.name: source.recall for source in findings.sources}
        drawn["sources"] = plots.bars(recall, "share of the targets offered", ours=["all together"], percent=True)
    for group in dict.fromkeys(row.group for row in findings.slices):
        drawn[group] = plots.intervals(_by_model(findings.slices, group), "recall@20", ours=findings.own)
    if findings.epochs:
        losses = [epoch.loss for epoch in findings.epochs]
        drawn["epochs"] = plots.learning_curve(losses, [epoch.validation_ndcg_at_10 for epoch in findings.epochs])
    if findings.importances:
        strongest = dict(list(findings.importances.items())[:MAX_IMPORTANCES])
        drawn["importances"] = plots.bars(strongest, "share of the gain of all splits", percent=True)
    if findings.reliability and findings.reliability.predicted:
        bins = findings.reliability
        lines = {"candidates": (bins.predicted, bins.observed)}
        drawn["reliability"] = plots.curve(lines, "predicted probability", "share taken", diagonal=True)
    return drawn


def _by_model(slices: Sequence[SliceScore], group: str) -> dict[str, dict[str, Estimate]]:
    rows: dict[str, dict[str, Estimate]] = {}
    for score in slices:
        if score.group == group:
            rows.setdefault(f"{score.name} ({score.n_targets:,})", {})[score.model] = score.recall
    return rows
