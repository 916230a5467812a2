"""What the service counts and times, summed over its worker processes: for Prometheus, and as JSON for people.

Each worker counts in memory that it shares through a file, so whoever is asked for the figures sees all of them, to the
last request and after a SIGKILL too. prometheus_client only writes the text: its own multiprocess mode costs 15 us a
request where this costs 3, keeps a file of every worker that ever ran, and shows the gauges of those that were killed.
"""

import fcntl
import json
import math
import mmap
import os
import tempfile
import time
from bisect import bisect_left
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
from rec_engine.serving.inference import Lap, Stage
from rec_engine.serving.metrics import BOUNDS_SECONDS, COMBINE, METRIC_BY_NAME, METRICS, N_BUCKETS, Metric, Series
from rec_engine.utils.logger import get_logger

DIRECTORY_VARIABLE = "REC_ENGINE_TELEMETRY_DIR"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - each user and port has a directory of its own in it
PREFIX = "rec_engine_"
VALUES_BYTES, SIZE_BYTES = 2**17, 2**18
"""A worker's file: room for 500 histograms or 16,000 counters, then for their names."""
SPARE_PLACE = VALUES_BYTES // 8 - N_BUCKETS - 1
"""What there is no room for is counted here, where nobody reads."""
SUFFIX = ".counts"

logger = get_logger(__name__)


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
        self._memory = _Memory(directory)
        self._numbers: dict[Series, _Number] = {}
        self._requests: dict[tuple[str | None, int], _Histogram] = {}
        self._stages = {stage: self._histogram("stage_duration_seconds", stage) for stage in get_args(Stage)}
        self._answers, self._items = self._number("answers_total"), self._number("items_returned_total")
        self._hits, self._misses = (self._number("cache_lookups_total", result) for result in ("hit", "miss"))
        self._feedback = self._number("feedback_events_total")
        self._dropped, self._n_dropped = self._number("impressions_dropped_total"), 0
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

    def acknowledged(self, n_events: int) -> None:
        """Count events of users that are on disk."""
        self._feedback.add(n_events)

    def exposed(self, experiment: str, arm: str) -> None:
        """Count a user who met an arm of an experiment."""
        self._number("experiment_exposures_total", experiment, arm).add(1)

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
        self._dropped.add(n_dropped - self._n_dropped)
        self._n_dropped = n_dropped

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

    def _number(self, *series: str) -> "_Number":
        number = self._numbers.get(series)
        if number is None:
            number = self._numbers[series] = _Number(self._memory.values, self._memory.place(series))
        return number

    def _histogram(self, *series: str) -> "_Histogram":
        return _Histogram(self._memory.values, self._memory.place(series))

    def _figures(self) -> Iterator[tuple[Metric, Sequence[str], NDArray[np.float64]]]:
        """Yield metric, labels and (n_values,) numbers of every series, summed over the workers, in a stable order."""
        found: dict[Series, NDArray[np.float64]] = {}
        for content, is_alive in self._memory.contents():
            for series, values in _series(content):
                metric = METRIC_BY_NAME[series[0]]
                if metric.is_gauge and (not is_alive or np.isnan(values[0])):
                    continue
                found[series] = COMBINE.get(metric.kind, np.add)(found[series], values) if series in found else values
        for metric in METRICS:
            for series in sorted(series for series in found if series[0] == metric.name):
                values = self._clock() - found[series] if metric.kind == "age" else found[series]
                yield metric, series[1:], values


class _Number:
    __slots__ = ("_place", "_values")

    def __init__(self, values: "memoryview[float]", place: int) -> None:
        self._values = values
        self._place = place

    def add(self, n: float) -> None:
        self._values[self._place] += n

    def set(self, value: float) -> None:
        self._values[self._place] = value


class _Histogram:
    __slots__ = ("_first", "_sum", "_values")

    def __init__(self, values: "memoryview[float]", place: int) -> None:
        self._values = values
        self._first = place
        self._sum = place + N_BUCKETS

    def observe(self, seconds: float) -> None:
        self._values[self._first + bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self._values[self._sum] += seconds


class _Memory:
    """The numbers of one worker, in a file that the others read: float64 values, then the names of their series.

    Each name is a line of JSON and stands for as many values as its metric has, in the same order. A worker holds a
    lock on its file; the kernel lets go of it however the worker ends, and the next worker takes the file over and
    counts on: no count is lost or goes back, and a thousand restarts leave no thousand files.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._path: Path | None = None
        if directory is None:
            self._map = mmap.mmap(-1, SIZE_BYTES)
        else:
            self._path, self._map = _free_file(directory)
        self.values = memoryview(self._map)[:VALUES_BYTES].cast("d")
        self._places: dict[Series, int] = {}
        self._n_values, self._names_end = 0, VALUES_BYTES
        for series, _ in _series(self._map[:]):
            self._take_place(series)

    def place(self, series: Series) -> int:
        """Return where the values of a series begin."""
        if series not in self._places:
            line = json.dumps(series).encode()
            end = self._names_end + len(line)
            if end >= SIZE_BYTES or self._n_values + METRIC_BY_NAME[series[0]].n_values > SPARE_PLACE:
                logger.warning("no room is left to count %s", series)
                return SPARE_PLACE
            self._map[self._names_end : end] = line
            self._take_place(series)
            # Last, for a name without its end is none: this process may be killed at any moment.
            self._map[end : end + 1] = b"\n"
        return self._places[series]

    def contents(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the bytes of every worker's memory, this one's first, and whether the worker is alive."""
        yield self._map[:], True
        for path in sorted(self._directory.glob(f"*{SUFFIX}")) if self._directory else []:
            if path != self._path:
                with path.open("rb") as file:
                    is_alive = not _lock(file.fileno(), fcntl.LOCK_SH)
                    yield file.read().ljust(SIZE_BYTES, b"\0"), is_alive

    def close(self) -> None:
        self.values.release()
        self._map.close()

    def _take_place(self, series: Series) -> None:
        metric = METRIC_BY_NAME[series[0]]
        self._places[series] = self._n_values
        if metric.is_gauge:
            self.values[self._n_values] = math.nan
        self._n_values += metric.n_values
        self._names_end += len(json.dumps(series)) + 1


def _free_file(directory: Path) -> tuple[Path, mmap.mmap]:
    """Return the first file that no worker holds, and its bytes, locked as long as they are mapped."""
    directory.mkdir(mode=0o700, exist_ok=True)
    number = 0
    while True:
        path = directory / f"{number}{SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _lock(descriptor, fcntl.LOCK_EX):
                if os.fstat(descriptor).st_size < SIZE_BYTES:
                    # Not a hole in the file: where memory is full this fails now, a write to the map kills the process.
                    os.pwrite(descriptor, bytes(SIZE_BYTES), 0)
                # The map has a duplicate of the descriptor, which keeps the lock.
                return path, mmap.mmap(descriptor, SIZE_BYTES)
        finally:
            os.close(descriptor)
        number += 1


def _lock(descriptor: int, kind: int) -> bool:
    """Return whether the lock could be had; not by fcntl's lockf, for which a process never conflicts with itself."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _series(content: bytes) -> Iterator[tuple[Series, NDArray[np.float64]]]:
    """Yield the series of a worker's memory with their (n_values,) numbers."""
    values, place = np.frombuffer(content, count=VALUES_BYTES // 8), 0
    for line in content[VALUES_BYTES:].split(b"\n")[:-1]:
        series = tuple(json.loads(line))
        end = place + METRIC_BY_NAME[series[0]].n_values
        yield series, values[place:end]
        place = end


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
