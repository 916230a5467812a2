"""The report of an experiment: one page of HTML that needs nothing else, neither to be made nor to be read."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.effect_plot import Point, effect_plot
from rec_engine.experiments.effects_over_time import Moment
from rec_engine.experiments.results import Analysis, Comparison
from rec_engine.experiments.wording import signed_per_cent

_STYLE = """
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; font: 15px/1.5 system-ui, sans-serif;
  color: #1f2933; background: #fff; color-scheme: light; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; padding-top: .8rem; border-top: 1px solid #e4e7eb; }
.soft, figcaption { color: #52606d; }
.verdict { margin: 1rem 0; padding: .9rem 1.1rem; border-left: 5px solid #0b6e4f; background: #f3f8f6; }
.worry { border-left-color: #b44d12; background: #fdf5ef; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e4e7eb; white-space: nowrap; }
th { color: #52606d; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
figure { margin: .6rem 0; }
svg { width: 100%; height: auto; font-size: 11px; fill: #52606d; }
.grid { stroke: #e4e7eb; } .zero { stroke: #1f2933; } .band { fill: #0b6e4f; opacity: .12; }
line.day { stroke: #9aa5b1; stroke-width: 1.5; } circle.day { fill: #9aa5b1; }
line.look { stroke: #0b6e4f; stroke-width: 2.5; } circle.look { fill: #0b6e4f; }
"""
_NOT_TO_USE = (
    "The z column takes every impression for a user. It is shown to be compared with the others, never to be used: "
    "where users have several impressions it calls equal arms different far more often than it says."
)


def report_page(experiment: Experiment, analysis: Analysis, moments: Sequence[Moment], until: int) -> str:
    """Return the page: verdict, effects over time and now, arms, sample ratio, health, and segments.

    Args:
        experiment: as it is.
        analysis: of now.
        moments: what was known before, at planned looks and by day.
        until: Unix seconds up to which was measured.
    """
    name = escape(experiment.name)
    is_there = any(moment.timestamp == until for moment in moments)
    now = [] if is_there else [Moment(until, analysis.comparisons, is_look=False)]
    parts = (
        f"<h1>{name}</h1>{_about(experiment, analysis, until)}",
        _verdict(analysis),
        f"<h2>Effect over time</h2>{_plots(experiment, [*moments, *now])}",
        f"<h2>Effects</h2>{_effects(analysis.comparisons)}<p class='soft'>{_NOT_TO_USE}</p>",
        f"<h2>Arms</h2>{_arms(analysis)}{_sample_ratio(experiment, analysis)}",
        f"<h2>Segments</h2>{_segments(analysis)}",
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{name}</title><style>{_STYLE}</style></head>\n'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _about(experiment: Experiment, analysis: Analysis, until: int) -> str:
    at = f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M}"
    about = (
        f"{experiment.experiment_id} is {experiment.status}; measured until {at} UTC, {analysis.days} days after its "
        f"start. {sum(analysis.users):,} users, {analysis.information_fraction:.0%} of those planned; "
        f"{analysis.looks_taken} planned looks taken."
    )
    hypothesis = f"<p>{escape(experiment.hypothesis)}</p>" if experiment.hypothesis else ""
    return f"<p class='soft'>{escape(about)}</p>{hypothesis}"


def _verdict(analysis: Analysis) -> str:
    found = analysis.recommendation
    kind = "verdict worry" if found.action == "investigate_further" else "verdict"
    return (
        f"<div class='{kind}'><b>{found.action}</b><br>{escape(found.reason)}<br>{escape(found.next_step)}</div>"
        + "".join(f"<div class='verdict worry'>{escape(sentence)}</div>" for sentence in analysis.health)
    )


def _plots(experiment: Experiment, moments: Sequence[Moment]) -> str:
    figures = []
    primary = [metric.name for metric in experiment.design.metrics if metric.role == "primary"]
    for metric, arm in ((metric, arm) for metric in primary for arm in experiment.arm_names[1:]):
        plot = effect_plot(_points(moments, metric, arm), escape(f"{metric} of {arm} over time"))
        caption = f"{metric} of {arm}, relative to the control"
        figures.append(f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>" if plot else "")
    legend = (
        "<p class='soft'>Area: the interval that holds at all moments together. Bars: the interval that holds at the "
        "planned end. Green: planned looks, which decide; all others only inform.</p>"
    )
    return "".join(figures) + legend if any(figures) else "<p>There is no effect to show yet.</p>"


def _points(moments: Sequence[Moment], metric: str, arm: str) -> list[Point]:
    return [
        Point(moment.timestamp, each.relative, each.relative_cs, each.relative_ci, moment.is_look)
        for moment in moments
        for each in moment.comparisons
        if (each.metric, each.arm) == (metric, arm) and each.relative is not None
    ]


def _effects(comparisons: Iterable[Comparison]) -> str:
    columns = ("metric", "arm", "effect", "interval at the end", "interval at any time", "p, planned looks")
    rows = [
        (
            f"{each.metric} ({each.role})",
            each.arm,
            _share(each.relative),
            _interval(each.relative_ci),
            _interval(each.relative_cs),
            _p(each.p_value_sequential),
            _p(each.p_value_adjusted),
            _p(each.p_value_always_valid),
            _p(each.p_value),
            _p(each.naive_p_value),
        )
        for each in comparisons
    ]
    return _table((*columns, "p, adjusted", "p, any time", "p, at the end", "why not z"), rows)


def _arms(analysis: Analysis) -> str:
    rows = [
        (each.metric, each.arm, f"{each.users:,}", _figure(each.value), _figure(each.se), _probability(each.prob_best))
        for each in analysis.figures
    ]
    return _table(("metric", "arm", "users", "figure", "standard error", "probability to be best"), rows)


def _sample_ratio(experiment: Experiment, analysis: Analysis) -> str:
    srm, shares = analysis.srm, experiment.phase.shares
    given = ", ".join(f"{arm} {share:.0%}" for arm, share in zip(experiment.arm_names, shares, strict=True))
    said = (
        f"Sample ratio: {srm.status}. Allotted now: {given}. p at any time: {_p(srm.sequential_p_value)}; "
        f"by chi-square: {_p(srm.p_value)}."
    )
    return f"<p>{escape(said)}</p>"


def _segments(analysis: Analysis) -> str:
    if not analysis.segments:
        return "<p>No attributes of users were given.</p>"
    rows = [
        (
            f"{each.attribute}: {each.value}",
            each.metric,
            each.arm,
            f"{each.users:,}",
            _figure(each.difference),
            "" if each.ci is None else f"{_figure(each.ci[0])} to {_figure(each.ci[1])}",
            _p(each.p_value_adjusted),
        )
        for each in analysis.segments
    ]
    table = _table(("segment", "metric", "arm", "users", "difference", "interval", "p, adjusted"), rows)
    return f"<p class='soft'>Exploratory: one of many looks, and never part of the verdict.</p>{table}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _share(value: float | None) -> str:
    return "" if value is None else signed_per_cent(value)


def _probability(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _interval(ends: tuple[float | None, float | None] | None) -> str:
    if ends is None:
        return ""
    return " to ".join("no bound" if end is None else signed_per_cent(end) for end in ends)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"  # noqa: PLR2004 - digits shown
