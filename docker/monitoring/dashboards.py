"""Writes the Grafana dashboards: `python docker/monitoring/dashboards.py`. Panels are lines of the tables below."""

import json
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parent / "grafana" / "dashboards"
WIDTH, HEIGHT, A_ROW = 8, 8, 3
SOURCE = {"type": "prometheus", "uid": "prometheus"}
DURATION = "rec_engine_request_duration_seconds"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: what it shows.
        unit: as Grafana names it.
        queries: legend to PromQL expression.
        about: how to read it.
    """

    title: str
    unit: str
    queries: dict[str, str]
    about: str = ""


def quantiles(histogram: str, selector: str = "", by: str = "") -> dict[str, str]:
    """Return the median and the two tails of a histogram, over all workers and machines."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    buckets = f"sum by ({labels}) (rate({histogram}_bucket{selector}[$__rate_interval]))"
    return {f"p{percent}{legend}": f"histogram_quantile({percent / 100}, {buckets})" for percent in (50, 95, 99)}


def rate(counter: str, by: str = "") -> str:
    """Return how fast a counter grows, a second."""
    labels = f" by ({by})" if by else ""
    return f"sum{labels} (rate({counter}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """Return how much of what one counter counts another does; nothing counted of it is none of it."""
    return f"({rate(part)} or vector(0)) / {rate(whole)}"


SERVICE = (
    Panel("Requests", "reqps", {"{{route}}": rate(f"{DURATION}_count", "route")}),
    Panel("Time of a recommendation", "s", quantiles(DURATION, '{route="/recommend"}')),
    Panel(
        "Time of each stage, p95",
        "s",
        {"{{stage}}": quantiles("rec_engine_stage_duration_seconds", by="stage")["p95 {{stage}}"]},
    ),
    Panel(
        "Availability",
        "percentunit",
        {
            "answered": "1 - " + share('rec_engine_errors_total{status=~"5.*"}', f"{DURATION}_count"),
        },
        "Requests that did not end with an error of the service.",
    ),
    Panel("Refusals and errors", "reqps", {"{{status}}": rate("rec_engine_errors_total", "status")}),
    Panel("Answers that went without a part", "reqps", {"{{part}}": rate("rec_engine_degraded_answers_total", "part")}),
    Panel(
        "Cache hits",
        "percentunit",
        {"hits": share('rec_engine_cache_lookups_total{result="hit"}', "rec_engine_cache_lookups_total")},
        "Of the answers that may be cached; exploration turns the cache off.",
    ),
    Panel(
        "Cache by level",
        "reqps",
        {"{{level}} {{result}}": rate("rec_engine_cache_level_lookups_total", "level, result")},
    ),
    Panel("Memory of the cache", "bytes", {"held by the workers": "rec_engine_cache_memory_bytes"}),
    Panel("Feedback", "cps", {"events": rate("rec_engine_feedback_events_total")}),
    Panel("Changes that wait to be written", "short", {"waiting": "rec_engine_write_queue_depth"}),
    Panel("Impressions that were lost", "cps", {"lost": rate("rec_engine_impressions_dropped_total")}),
    Panel(
        "Workers and users in memory", "short", {"workers": "rec_engine_workers", "users": "rec_engine_users_in_memory"}
    ),
)
MODEL = (
    Panel("Served versions", "short", {"{{version}}": "rec_engine_model_info"}),
    Panel("Age of the model", "s", {"age": "rec_engine_model_age_seconds"}),
    Panel(
        "Time of the model", "s", quantiles("rec_engine_stage_duration_seconds", '{stage=~"recall|rank"}', by="stage")
    ),
    Panel(
        "Items in an answer",
        "short",
        {"items": share("rec_engine_items_returned_total", "rec_engine_answers_total")},
        "Fewer than were asked for where filters leave fewer.",
    ),
    Panel(
        "Mean score of what is shown",
        "short",
        {
            "now": share("rec_engine_item_scores_total", "rec_engine_items_returned_total"),
            "a week ago": (
                "sum(rate(rec_engine_item_scores_total[1h] offset 1w))"
                " / sum(rate(rec_engine_items_returned_total[1h] offset 1w))"
            ),
        },
        "A click probability, with a re-ranker. It drifts where users or items are no longer those of the training.",
    ),
    Panel(
        "Answers to users without a history",
        "percentunit",
        {"share": share("rec_engine_cold_answers_total", "rec_engine_answers_total")},
    ),
    Panel(
        "Exposures to experiments",
        "cps",
        {"{{experiment}} {{arm}}": rate("rec_engine_experiment_exposures_total", "experiment, arm")},
    ),
    Panel(
        "Requests to the shadow",
        "reqps",
        {"{{version}} {{outcome}}": rate("rec_engine_shadow_requests_total", "version, outcome")},
    ),
)
DASHBOARDS = {"service": ("Service", SERVICE), "model": ("Model and experiments", MODEL)}


def dashboard(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, object]:
    """Return Grafana's form of it."""
    return {
        "uid": f"rec-engine-{uid}",
        "title": f"rec-engine: {title}",
        "schemaVersion": 41,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(place, panel) for place, panel in enumerate(panels)],
    }


def _panel(place: int, panel: Panel) -> dict[str, object]:
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": place % A_ROW * WIDTH, "y": place // A_ROW * HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + row), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for row, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def text(uid: str) -> str:
    """Return the file of a dashboard."""
    return json.dumps(dashboard(uid, *DASHBOARDS[uid]), indent=2) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (DIRECTORY / f"{name}.json").write_text(text(name), encoding="utf-8")
