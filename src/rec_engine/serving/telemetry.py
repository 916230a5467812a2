"""What the service counts and times, summed over its worker processes: for Prometheus, and as JSON for people.

Each worker counts in memory that it shares through a file, so whoever is asked for the figures sees all of them, to the
last request and after a SIGKILL too. prometheus_client only writes the text: its own multiprocess mode costs 15 us a
request where this costs 3, keeps a file of every worker that ever ran, and shows the gauges of those that were killed.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from rec_engine.errors import ConfigError
from rec_engine.serving.cache import InMemoryCache, Level
from rec_engine.serving.inference import Lap, Stage
from rec_engine.serving.metrics import BOUNDS_SECONDS, COMBINE, METRIC_BY_NAME, METRICS, Metric, Series
from rec_engine.serving.shared_counts import Histogram, Number, SharedCounts, series_of

DIRECTORY_VARIABLE = "REC_ENGINE_TELEMETRY_DIR"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - each user and port has a directory of its own in it
PREFIX = "rec_engine_"


def prepare_directory(port: int) -> Path:
    """Return an empty directory for the workers of the server on this port, and name it to them in the environment.

    To be called before they start. It lies in memory where there is /dev/shm: on a disk the kernel holds a worker up
    while it writes a page back.

    Raises:
        ConfigError: if something else has its name.
    """
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    directory = parent / f"rec-engine-{os.getuid()}-{port}"
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if directory.is_symlink() or not directory.is_dir() or directory.stat().st_uid != os.getuid():
        raise ConfigError(f"{directory}: is not a directory of this user", hint="remove it, or choose another port")
    for file in directory.iterdir():
        file.unlink()
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    return directory


def open_telemetry() -> "Telemetry":
    """Return what this process counts in; for itself alone where no directory was prepared."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return Telemetry(Path(directory) if directory else None)


class Telemetry:
    """Counts and times what one worker does, in one thread; shows what all of them do together, in any thread.

    Args:
        directory: where all workers of a server count; without one a process is by itself.
        clock: Unix seconds, for ages.
    """

    def __init__(self, directory: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._memory = SharedCounts(directory)
        self._numbers: dict[Series, Number] = {}
        self._requests: dict[tuple[str | None, int], Histogram] = {}
        self._stages = {stage: self._histogram("stage_duration_seconds", stage) for stage in get_args(Stage)}
        self._answers, self._items = self._number("answers_total"), self._number("items_returned_total")
        self._hits, self._misses = (self._number("cache_lookups_total", result) for result in ("hit", "miss"))
        self._known, self._cold = (self._number("computed_answers_total", user) for user in ("known", "cold"))
        self._ranked, self._ranked_scores = self._number("ranked_items_total"), self._number("ranked_scores_total")
        self._feedback = self._number("feedback_events_total")
        self._totals: dict[Series, int] = {}
        self._version: str | None = None
        self._number("workers").set(1)

    def request_done(self, route: str | None, status: int, seconds: float) -> None:
        """Count an answered request; its route is the template, None where there is none."""
        key = route, status // 100
        histogram = self._requests.get(key)
        if histogram is None:
            series = "request_duration_seconds", route or "other", f"{status // 100}xx"
            histogram = self._requests[key] = self._histogram(*series)
        histogram.observe(seconds)
        if status >= 400:
            self._number("errors_total", str(status)).add(1)

    def stop_watch(self) -> Lap:
        """Return what is to be called at the end of each stage of one request: the first has begun."""
        since, stages = time.perf_counter(), self._stages

        def lap(stage: Stage) -> None:
            nonlocal since
            now = time.perf_counter()
            stages[stage].observe(now - since)
            since = now

        return lap

    def answered(self, n_items: int, *, is_cached: bool, degraded: Sequence[str] = ()) -> None:
        """Count a recommendation."""
        self._answers.add(1)
        self._items.add(n_items)
        (self._hits if is_cached else self._misses).add(1)
        for part in degraded:
            self._number("degraded_answers_total", part).add(1)

    def computed(self, n_ranked: int, ranked_scores: float, *, is_user_known: bool) -> None:
        """Count a recommendation that was not cached, with what tells whether the model still fits."""
        (self._known if is_user_known else self._cold).add(1)
        self._ranked.add(n_ranked)
        self._ranked_scores.add(ranked_scores)

    def acknowledged(self, n_events: int) -> None:
        """Count events of users that are on disk."""
        self._feedback.add(n_events)

    def counted(self, amounts: Mapping[Series, float]) -> None:
        """Add what another thread of this worker counted."""
        for series, amount in amounts.items():
            self._number(*series).add(amount)

    def totals(self, prefix: str, version: str) -> dict[Series, float]:
        """Return the counts of all workers of one version: name of the metric and further labels to number."""
        return {
            (metric.name, *labels[1:]): float(values[0])
            for metric, labels, values in self._figures()
            if metric.name.startswith(prefix) and labels[0] == version
        }

    def serves(self, version: str, created_at: float) -> None:
        """Say which model this worker serves from now on, and when it was made, in Unix seconds."""
        if self._version is not None:
            self._number("model_info", self._version).set(math.nan)
        self._version = version
        self._number("model_info", version).set(1)
        self._number("model_age_seconds").set(created_at)

    def stands(self, *, n_waiting: int, n_dropped: int, n_users: int) -> None:
        """Say how this worker stands: changes not yet written, impressions dropped since it started, users held."""
        self._number("write_queue_depth").set(n_waiting)
        self._number("users_in_memory").set(n_users)
        self._total(n_dropped, "impressions_dropped_total")

    def cache_stands(self, levels: Sequence[Level]) -> None:
        """Say how the levels of this worker's cache stand; they count by themselves what they do."""
        for level in levels:
            counts = level.counts
            self._total(counts.hits, "cache_level_lookups_total", counts.level, "hit")
            self._total(counts.misses, "cache_level_lookups_total", counts.level, "miss")
            self._total(counts.errors, "cache_level_errors_total", counts.level)
            if isinstance(level, InMemoryCache):
                self._number("cache_memory_bytes").set(level.stats().bytes_used)

    def render(self) -> tuple[bytes, str]:
        """Return the figures of all workers in Prometheus' text format, and its content type."""
        return generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4

    def as_json(self) -> bytes:
        """Return the same figures as a JSON object: for each metric the list of its series, percentiles included."""
        shown: dict[str, list[dict[str, object]]] = {PREFIX + metric.name: [] for metric in METRICS}
        for metric, labels, values in self._figures():
            numbers = _summary(values) if metric.kind == "histogram" else {"value": float(values[0])}
            shown[PREFIX + metric.name].append({**dict(zip(metric.labels, labels, strict=True)), **numbers})
        return json.dumps(shown).encode()

    def collect(self) -> Iterator[Family]:
        """Yield the figures of all workers as prometheus_client has them."""
        families: dict[str, Family] = {}
        for metric, labels, values in self._figures():
            family = families.setdefault(metric.name, _family(metric))
            if isinstance(family, HistogramMetricFamily):
                bounds = [*map(str, BOUNDS_SECONDS), "+Inf"]
                family.add_metric(labels, list(zip(bounds, np.cumsum(values[:-1]), strict=True)), float(values[-1]))
            elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
                family.add_metric(labels, float(values[0]))
        yield from families.values()

    def close(self) -> None:
        """Leave the counts to whichever worker comes next."""
        self._memory.close()

    def _number(self, *series: str) -> Number:
        number = self._numbers.get(series)
        if number is None:
            number = self._numbers[series] = Number(self._memory.values, self._memory.place(series))
        return number

    def _total(self, total: int, *series: str) -> None:
        """Add what a count has grown by since it was told last."""
        self._number(*series).add(total - self._totals.get(series, 0))
        self._totals[series] = total

    def _histogram(self, *series: str) -> Histogram:
        return Histogram(self._memory.values, self._memory.place(series))

    def _figures(self) -> Iterator[tuple[Metric, Sequence[str], NDArray[np.float64]]]:
        """Yield metric, labels and (n_values,) numbers of every series, summed over the workers, in a stable order."""
        found: dict[Series, NDArray[np.float64]] = {}
        for content, is_alive in self._memory.contents():
            for series, values in series_of(content):
                metric = METRIC_BY_NAME[series[0]]
                if metric.is_gauge and (not is_alive or np.isnan(values[0])):
                    continue
                found[series] = COMBINE.get(metric.kind, np.add)(found[series], values) if series in found else values
        for metric in METRICS:
            for series in sorted(series for series in found if series[0] == metric.name):
                values = self._clock() - found[series] if metric.kind == "age" else found[series]
                yield metric, series[1:], values


def _family(metric: Metric) -> Family:
    if metric.kind == "histogram":
        return HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
    kind = GaugeMetricFamily if metric.is_gauge else CounterMetricFamily
    return kind(PREFIX + metric.name, metric.help, labels=metric.labels)


def _summary(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return number, mean and percentiles of a histogram; a percentile is taken to lie evenly within its bucket."""
    counts, n = values[:-1], int(values[:-1].sum())
    summary: dict[str, float | None] = {"n": n, "mean_ms": round(1000 * float(values[-1]) / n, 4) if n else None}
    bounds, cumulative = np.array([0.0, *BOUNDS_SECONDS, BOUNDS_SECONDS[-1]]), np.cumsum(counts)
    for percent in (50, 95, 99):
        wanted = n * percent / 100
        bucket = int(np.searchsorted(cumulative, wanted))
        share = 1 - (cumulative[bucket] - wanted) / max(1.0, counts[bucket])
        found = bounds[bucket] + share * (bounds[bucket + 1] - bounds[bucket])
        summary[f"p{percent}_ms"] = round(1000 * float(found), 4) if n else None
    return summary
