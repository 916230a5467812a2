"""Figures over several real processes: nothing is lost, nothing is counted twice, whoever is asked and whoever dies."""

import json
import os
import re
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rec_engine.errors import ConfigError
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.metrics import BOUNDS_SECONDS, METRICS
from rec_engine.serving.telemetry import (
    DIRECTORY_VARIABLE,
    PREFIX,
    Telemetry,
    open_telemetry,
    prepare_directory,
)

WORKER = """
import sys
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.telemetry import open_telemetry
telemetry, cache = open_telemetry(), InMemoryCache()
n, version, created_at = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
telemetry.serves(version, created_at)
telemetry.stands(n_waiting=n, n_dropped=n, n_users=n)
for number in range(n):
    telemetry.request_done("/recommend", 200 if number % 10 else 422, 0.004)
    telemetry.answered(10, is_cached=number % 2 == 0, degraded=["events"] if number % 5 == 0 else [])
    cache.set(str(number), bytes(100), 60)
    cache.get(str(number))
    cache.get("nothing")
telemetry.cache_stands(cache.levels)
telemetry.acknowledged(n)
print("done", flush=True)
sys.stdin.read()
telemetry.close()
"""
"""Counts, says so, and lives until its standard input ends."""

Sample = tuple[str, frozenset[tuple[str, str]]]


@contextmanager
def worker(directory: Path, n: int, version: str = "v1", created_at: float = 900.0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, str(n), version, str(created_at)]
    environment = os.environ | {DIRECTORY_VARIABLE: str(directory)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        try:
            yield process
        finally:
            process.kill()


def samples(telemetry: Telemetry) -> dict[Sample, float]:
    text, _ = telemetry.render()
    return {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def figure(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return samples(telemetry).get((name, frozenset(labels.items())))


def test_every_process_shows_what_all_have_counted(tmp_path: Path) -> None:
    with worker(tmp_path, 300), worker(tmp_path, 400), worker(tmp_path, 100, version="v2", created_at=700.0):
        asked = Telemetry(tmp_path, clock=lambda: 1_000.0)
        assert figure(asked, "request_duration_seconds_count", route="/recommend", status="2xx") == 720
        assert figure(asked, "request_duration_seconds_count", route="/recommend", status="4xx") == 80
        assert figure(asked, "request_duration_seconds_sum", route="/recommend", status="2xx") == pytest.approx(2.88)
        assert figure(asked, "errors_total", status="422") == 80
        assert figure(asked, "answers_total") == 800
        assert figure(asked, "items_returned_total") == 8_000
        assert figure(asked, "cache_lookups_total", result="hit") == 400
        assert figure(asked, "cache_lookups_total", result="miss") == 400
        assert figure(asked, "cache_level_lookups_total", level="memory", result="hit") == 800
        assert figure(asked, "cache_level_lookups_total", level="memory", result="miss") == 800
        assert figure(asked, "cache_level_errors_total", level="memory") == 0
        assert 800 * 100 < figure(asked, "cache_memory_bytes") < 800 * 1_000  # type: ignore[operator]
        assert figure(asked, "degraded_answers_total", part="events") == 160
        assert figure(asked, "feedback_events_total") == 800
        assert figure(asked, "impressions_dropped_total") == 800
        assert figure(asked, "write_queue_depth") == 800
        assert figure(asked, "users_in_memory") == 800
        assert figure(asked, "workers") == 4
        assert figure(asked, "model_info", version="v1") == figure(asked, "model_info", version="v2") == 1
        assert figure(asked, "model_age_seconds") == 300
        asked.close()


def test_a_killed_worker_leaves_its_counts_but_no_standing(tmp_path: Path) -> None:
    with worker(tmp_path, 300, version="v1", created_at=100.0) as first, worker(tmp_path, 500, version="v2"):
        third = Telemetry(tmp_path, clock=lambda: 1_000.0)
        assert (figure(third, "workers"), figure(third, "model_age_seconds")) == (3, 900)
        first.kill()
        first.wait()
        assert figure(third, "answers_total") == 800
        assert figure(third, "impressions_dropped_total") == 800
        assert figure(third, "request_duration_seconds_count", route="/recommend", status="2xx") == 720
        assert figure(third, "write_queue_depth") == figure(third, "users_in_memory") == 500
        assert figure(third, "workers") == 2
        assert figure(third, "model_info", version="v1") is None
        assert figure(third, "model_age_seconds") == 100
        third.close()


def test_many_deaths_leave_one_file_and_every_count(tmp_path: Path) -> None:
    for _ in range(4):
        with worker(tmp_path, 50) as process:
            process.kill()
    assert len(list(tmp_path.iterdir())) == 1
    asked = Telemetry(tmp_path)
    assert (figure(asked, "answers_total"), figure(asked, "write_queue_depth")) == (200, None)
    asked.close()


def test_a_name_that_a_killed_worker_left_half_written_spoils_nothing(tmp_path: Path) -> None:
    first = Telemetry(tmp_path)
    first.counted({("experiment_exposures_total", "colours", "blue"): 1})
    first.close()
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    half = content.rindex(b"\n") + 1
    path.write_bytes(
        content[:half] + b'["experiment_exposures_total", "a long name of so'.ljust(len(content) - half, b"\0")
    )
    for times in (1, 2):
        again = Telemetry(tmp_path)
        again.counted({("experiment_exposures_total", "colours", "red"): 1})
        again.counted({("experiment_exposures_total", "b", "c"): 1})
        assert figure(again, "experiment_exposures_total", experiment="colours", arm="blue") == 1
        assert figure(again, "experiment_exposures_total", experiment="colours", arm="red") == times
        assert figure(again, "experiment_exposures_total", experiment="b", arm="c") == times
        again.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 4), min_size=1, max_size=200))
def test_histograms_hold_every_observation_in_its_bucket(seconds: list[float]) -> None:
    telemetry = Telemetry()
    for each in seconds:
        telemetry.request_done("/trending", 200, each)
    found, labels = samples(telemetry), frozenset({("route", "/trending"), ("status", "2xx")})
    for bound in (*BOUNDS_SECONDS, np.inf):
        le = "+Inf" if bound == np.inf else str(bound)
        below = found["request_duration_seconds_bucket", labels | {("le", le)}]
        assert below == sum(each <= bound for each in seconds)
    assert found["request_duration_seconds_count", labels] == len(seconds)
    assert found["request_duration_seconds_sum", labels] == pytest.approx(sum(seconds))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 2.4), min_size=1, max_size=200))
def test_percentiles_lie_in_the_bucket_of_the_true_ones(seconds: list[float]) -> None:
    telemetry = Telemetry()
    for each in seconds:
        telemetry.request_done(None, 200, each)
    (found,) = json.loads(telemetry.as_json())[f"{PREFIX}request_duration_seconds"]
    assert (found["route"], found["n"]) == ("other", len(seconds))
    assert found["mean_ms"] == pytest.approx(1000 * np.mean(seconds), abs=1e-4)
    for percent in (50, 95, 99):
        bucket = bisect_left(BOUNDS_SECONDS, np.quantile(seconds, percent / 100, method="inverted_cdf"))
        low, high = (0.0, *BOUNDS_SECONDS)[bucket], BOUNDS_SECONDS[bucket]
        assert 1000 * low - 1e-4 <= found[f"p{percent}_ms"] <= 1000 * high + 1e-4


def test_json_and_prometheus_text_show_the_same_figures(tmp_path: Path) -> None:
    with worker(tmp_path, 40):
        telemetry = Telemetry(tmp_path, clock=lambda: 1_000.0)
        shown = samples(telemetry)
        found: dict[str, list[dict[str, str | float]]] = json.loads(telemetry.as_json())
        telemetry.close()
    assert list(found) == [PREFIX + metric.name for metric in METRICS]
    for metric in METRICS:
        name, key = (f"{metric.name}_count", "n") if metric.kind == "histogram" else (metric.name, "value")
        in_json = {
            frozenset((each, row[each]) for each in metric.labels): row[key] for row in found[PREFIX + metric.name]
        }
        assert in_json == {labels: value for (each, labels), value in shown.items() if each == name}
    assert found[f"{PREFIX}stage_duration_seconds"][0] == {
        "stage": "arrange", "n": 0, "mean_ms": None, "p50_ms": None, "p95_ms": None, "p99_ms": None
    }  # fmt: skip


def test_stages_are_timed_one_after_the_other() -> None:
    telemetry = Telemetry()
    lap = telemetry.stop_watch()
    lap("state")
    lap("recall")
    rows = {row["stage"]: row for row in json.loads(telemetry.as_json())[f"{PREFIX}stage_duration_seconds"]}
    assert {stage: row["n"] for stage, row in rows.items() if row["n"]} == {"state": 1, "recall": 1}
    assert 0 < rows["recall"]["mean_ms"] < 1_000


def test_only_the_model_that_is_served_now_is_shown() -> None:
    telemetry = Telemetry(clock=lambda: 1_000.0)
    for version, created_at in (("v1", 100.0), ("v2", 400.0), ("v1", 100.0), ("v3", 900.0)):
        telemetry.serves(version, created_at)
    served = {labels for name, labels in samples(telemetry) if name == "model_info"}
    assert (served, figure(telemetry, "model_age_seconds")) == ({frozenset({("version", "v3")})}, 100)


def test_dropped_impressions_are_counted_once_however_often_the_worker_says_how_it_stands() -> None:
    telemetry = Telemetry()
    for n_dropped in (0, 3, 3, 5):
        telemetry.stands(n_waiting=0, n_dropped=n_dropped, n_users=0)
    assert figure(telemetry, "impressions_dropped_total") == 5


def test_what_a_level_did_is_counted_once_however_often_the_worker_says_how_it_stands() -> None:
    telemetry, cache = Telemetry(), InMemoryCache()
    for _ in range(3):
        cache.set("key", b"value", 60)
        cache.get("key")
        telemetry.cache_stands(cache.levels)
        telemetry.cache_stands(cache.levels)
    assert figure(telemetry, "cache_level_lookups_total", level="memory", result="hit") == 3
    cache.clear()
    telemetry.cache_stands(cache.levels)
    assert figure(telemetry, "cache_memory_bytes") == 0


def test_too_many_series_cost_those_that_came_last_and_nothing_else(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path)
    telemetry.answered(10, is_cached=True)
    for number in range(5_000):
        telemetry.counted({("experiment_exposures_total", "an experiment", f"arm {number}"): 1})
    telemetry.request_done("/late", 200, 0.1)
    assert figure(telemetry, "answers_total") == 1
    kept = [value for (name, _), value in samples(telemetry).items() if name == "experiment_exposures_total"]
    assert 1_000 < len(kept) < 5_000
    assert set(kept) == {1.0}
    telemetry.close()


def test_labels_may_hold_any_text(tmp_path: Path) -> None:
    telemetry, strange = Telemetry(tmp_path), 'a "quoted"\n\\name, π'
    telemetry.counted({("experiment_exposures_total", strange, "1"): 1})
    assert figure(telemetry, "experiment_exposures_total", experiment=strange, arm="1") == 1
    telemetry.close()


def test_the_content_type_is_that_of_prometheus_text() -> None:
    text, content_type = Telemetry().render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert text.endswith(b"\n")


@pytest.fixture
def shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where directories are made, instead of the machine's own shared memory; the environment is as before after it."""
    monkeypatch.setattr("rec_engine.serving.telemetry.SHARED_MEMORY", tmp_path)
    monkeypatch.setenv(DIRECTORY_VARIABLE, "")
    return tmp_path


def test_a_new_server_begins_with_nothing(shared_memory: Path) -> None:
    for n_answers in (1, 2):
        assert list(prepare_directory(8000).iterdir()) == []
        workers = [open_telemetry(), open_telemetry()]
        for _ in range(n_answers):
            workers[0].answered(1, is_cached=False)
        assert figure(workers[1], "answers_total") == n_answers
        for each in workers:
            each.close()
    assert prepare_directory(8001) != prepare_directory(8000)


def test_a_process_for_which_nothing_was_prepared_counts_by_itself(shared_memory: Path) -> None:
    first, second = open_telemetry(), open_telemetry()
    first.answered(1, is_cached=False)
    assert (figure(first, "answers_total"), figure(second, "answers_total")) == (1, 0)


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_not_our_directory_is_left_alone(shared_memory: Path, what: str) -> None:
    directory, theirs = prepare_directory(8000), shared_memory / "theirs"
    directory.rmdir()
    theirs.mkdir()
    (theirs / "precious").touch()
    if what == "file":
        directory.touch()
    else:
        directory.symlink_to(theirs)
    with pytest.raises(ConfigError, match=re.escape(str(directory))):
        prepare_directory(8000)
    assert (theirs / "precious").exists()
    assert directory.is_symlink() or directory.is_file()


def test_a_directory_that_somebody_removed_costs_the_others_figures_only(tmp_path: Path) -> None:
    directory = tmp_path / "counts"
    first = Telemetry(directory)
    first.answered(1, is_cached=False)
    (path,) = directory.iterdir()
    path.unlink()
    directory.rmdir()
    assert figure(first, "answers_total") == 1
    second = Telemetry(directory)
    assert figure(second, "answers_total") == 0
    first.close()
    second.close()
