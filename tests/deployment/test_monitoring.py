"""Dashboards and alerts ask for what the service exports: by name, and by a Prometheus that scrapes a real service."""

import importlib.util
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from servers import ask, free_port, served

from rec_engine.serving.metrics import METRICS

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
RULES = MONITORING / "rules.yml"
QUIET = re.compile("rec_engine_(degraded|cache_level|shadow|experiment|impressions_dropped)|offset 1w|status=~|up{")
"""What a service that is well, tries nothing and is a minute old has no figures of."""


@pytest.fixture(scope="module")
def dashboards() -> ModuleType:
    """The script that writes them."""
    spec = importlib.util.spec_from_file_location("dashboards", MONITORING / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panel_queries() -> list[str]:
    """Return every query of every dashboard, as the files have them."""
    files = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]


def alert_queries() -> list[str]:
    """Return what the alerts ask."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_the_files_are_what_the_script_writes(dashboards: ModuleType) -> None:
    for name in dashboards.DASHBOARDS:
        assert (dashboards.DIRECTORY / f"{name}.json").read_text(encoding="utf-8") == dashboards.text(name)
    assert {path.stem for path in dashboards.DIRECTORY.glob("*.json")} == set(dashboards.DASHBOARDS)


@pytest.mark.parametrize("query", panel_queries() + alert_queries())
def test_a_query_asks_for_metrics_and_labels_that_there_are(query: str) -> None:
    labels = {f"rec_engine_{metric.name}": {*metric.labels} for metric in METRICS}
    for metric in METRICS:
        if metric.kind == "histogram":
            name = f"rec_engine_{metric.name}"
            labels |= {
                f"{name}_bucket": {*metric.labels, "le"},
                f"{name}_count": labels[name],
                f"{name}_sum": labels[name],
            }
    asked = re.findall(r"(rec_engine_\w+)(?:{(.*?)})?", query)
    for name, selector in asked:
        assert name in labels
        assert set(re.findall(r"(\w+)=", selector)) <= labels[name]
    for grouped in re.findall(r"by \((.*?)\)", query):
        assert set(grouped.split(", ")) <= {label for name, _ in asked for label in labels[name]}


with_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs prometheus and promtool, as Debian's package has them",
)


@with_prometheus
def test_promtool_has_nothing_to_object_and_every_alert_is_tried() -> None:
    tool = str(shutil.which("promtool"))
    for what in (["check", "rules", str(RULES)], ["test", "rules", str(MONITORING / "rules_test.yml")]):
        subprocess.run([tool, *what], check=True)
    subprocess.run([tool, "check", "config", str(MONITORING / "prometheus.yml")], check=True)
    names = set(re.findall(r"alert: (\w+)", RULES.read_text(encoding="utf-8")))
    assert names == set(re.findall(r"alertname: (\w+)", (MONITORING / "rules_test.yml").read_text(encoding="utf-8")))
    runbooks = (MONITORING.parents[1] / "docs" / "runbooks.md").read_text(encoding="utf-8")
    assert names == set(re.findall(r"^## (\w+)", runbooks, flags=re.M))


@contextmanager
def prometheus(directory: Path, target: str) -> Iterator[str]:
    """Yield where a Prometheus answers that scrapes a target every half second."""
    port, config = free_port(), directory / "prometheus.yml"
    scrape = {"job_name": "rec-engine", "static_configs": [{"targets": [target]}]}
    config.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [scrape]})
    )
    command = [
        *(str(shutil.which("prometheus")), f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def result_of(url: str, query: str) -> list[Any]:
    parameters = urllib.parse.urlencode({"query": query.replace("$__rate_interval", "10s")})
    with urllib.request.urlopen(f"{url}/api/v1/query?{parameters}", timeout=10) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
        return found


@with_prometheus
def test_every_panel_shows_something_of_a_service_that_runs(model_dir: Path, tmp_path: Path) -> None:
    queries = panel_queries()
    loud = [query for query in queries if not QUIET.search(query)]
    assert len(loud) > 0.6 * len(queries)
    with (
        served(model_dir, tmp_path / "events.db", 2) as (url, _),
        prometheus(tmp_path, url.removeprefix("http://")) as at,
    ):
        missing = loud
        for turn in range(60):
            for user in range(5):
                ask(f"{url}/recommend", {"user_id": user, "num_recommendations": 1 + turn})  # each is computed once
                ask(f"{url}/recommend", {"user_id": user, "num_recommendations": 1 + turn})
            ask(f"{url}/feedback", {"user_id": turn, "item_id": 101, "action": "click"})
            with pytest.raises(urllib.error.HTTPError, match="422"):
                ask(f"{url}/recommend", {"user_id": 1, "num_recommendations": 0})
            time.sleep(0.25)
            if turn > 10:
                missing = [
                    query for query in loud if not any(each["value"][1] != "NaN" for each in result_of(at, query))
                ]
                if not missing:
                    break
        assert missing == []
        for query in [*queries, *alert_queries()]:
            result_of(at, query)  # a query that Prometheus cannot read is an error
        assert result_of(at, 'up{job="rec-engine"} == 1')
