"""A backup holds all that was acknowledged, of one moment; restored it is the same rows, wherever to."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sql
from conftest import empty_database, store_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from releases import fill_with_release
from sqlalchemy.exc import DBAPIError

from rec_engine import cli
from rec_engine.data import backup, restoring, schema
from rec_engine.data.backup import back_up, read_manifest
from rec_engine.data.database import event_rows
from rec_engine.data.events import Event, EventStore, Impression, ItemChange
from rec_engine.data.experiment_log import ExperimentLog, Exposure
from rec_engine.data.restoring import restore
from rec_engine.errors import DataError, StoreError

ENGINES = ("sqlite", "postgresql")
TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)
EVENTS = st.builds(
    Event,
    event_id=st.uuids().map(str),
    user_id=TEXTS,
    item_id=TEXTS,
    event=TEXTS,
    timestamp=st.integers(-(2**62), 2**62),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    request_id=st.none() | TEXTS,
    context=st.none() | TEXTS,
)


def url_of(engine: str, request: pytest.FixtureRequest, directory: Path) -> str:
    if engine == "sqlite":
        return f"sqlite:///{directory / f'{uuid.uuid4().hex}.db'}"
    return empty_database(request.getfixturevalue("postgres_url"))


@pytest.mark.parametrize("target", ENGINES)
@pytest.mark.parametrize("source", ENGINES)
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=1, max_size=9))
def test_what_is_restored_is_what_was_backed_up(
    source: str, target: str, request: pytest.FixtureRequest, tmp_path: Path, events: list[Event]
) -> None:
    first, second = (url_of(engine, request, tmp_path) for engine in (source, target))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backup, "ROWS_A_FILE", 4)
        store = EventStore(first)
        shown = [Impression(f"r-{place}", "ann", place, "v", '[["tea", 0.9, 1.0]]', known=0) for place in range(5)]
        store.write([*events, *shown, ItemChange("tea", "visible", "{}")])
        store.close()
        directory = tmp_path / uuid.uuid4().hex
        made = back_up(first, directory, now=7)
    assert restore(directory, second) == made
    assert store_rows(second) == store_rows(first)
    assert made.rows == sum(map(len, store_rows(first).values()))
    again = EventStore(second)
    again.write([Impression("r-9", "ann", 1, "v", "[]", known=0), Event("new", "ann", "tea", "click", 1)])
    assert again.position() == len(events) + 2
    assert again.count(Impression) == 6
    again.close()


def test_a_backup_of_the_previous_release_is_restored_with_the_tables_of_this_one(
    store_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fill_with_release(store_url, "0.1.0")
    back_up(store_url, tmp_path / "backup", now=0)
    for engine in ENGINES:
        target = url_of(engine, request, tmp_path)
        assert restore(tmp_path / "backup", target).revision == "0001"
        assert schema.standing(target)[1] == schema.HEAD
        assert store_rows(target) == store_rows(store_url)


WRITER = """
import sys
from rec_engine.data.events import Event, EventStore
store = EventStore(sys.argv[1])
place = 0
while True:
    store.write([Event(f"{place}-{half}", "ann", "tea", "click", place) for half in (0, 1)])
    print(place, flush=True)
    place += 1
"""


def test_nothing_acknowledged_before_a_backup_began_is_missing_and_no_write_is_in_it_by_half(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "ROWS_A_FILE", 50)
    EventStore(store_url).close()
    command = [sys.executable, "-c", WRITER, store_url]
    acknowledged = [-1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = writer.stdout
        reading = threading.Thread(target=lambda: acknowledged.extend(int(line) for line in lines))
        reading.start()
        for turn in range(3):
            wanted = acknowledged[-1] + 40
            while acknowledged[-1] < wanted:
                time.sleep(0.01)
            known = acknowledged[-1]
            directory = tmp_path / f"backup {turn}"
            back_up(store_url, directory, now=0)
            found = pl.read_parquet(directory / "events-*.parquet")["event_id"].str.split("-").list.first()
            counts = found.cast(pl.Int64).value_counts().sort("event_id")
            assert counts["event_id"].to_list() == list(range(len(counts)))
            assert counts["count"].unique().to_list() == [2]
            assert len(counts) > known
            [position] = pl.read_parquet(directory / "log_position-00000.parquet")["value"]
            assert position == 2 * len(counts)
        writer.kill()
        reading.join()


KILLED = """
import os, signal, sys
from pathlib import Path
from rec_engine.data import backup
backup.ROWS_A_FILE = 1
write, n = backup._to_disk, int(sys.argv[3])
def until(path):
    global n
    n -= 1
    if n < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path)
backup._to_disk = until
backup.back_up(sys.argv[1], Path(sys.argv[2]), now=0)
"""


@pytest.mark.parametrize("n_files", [0, 3, 17, 18])
def test_a_backup_that_is_killed_leaves_nothing_that_looks_like_one(tmp_path: Path, n_files: int) -> None:
    url, directory = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "backups" / "monday"
    fill_with_release(url, "0.1.0")
    command = [sys.executable, "-c", KILLED, url, str(directory), str(n_files)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert os.listdir(directory.parent) == [".monday.partial"]
    with pytest.raises(DataError, match="no backup that can be used"):
        read_manifest(directory)
    back_up(url, directory, now=0)
    assert os.listdir(directory.parent) == ["monday"]


def test_a_backup_is_for_the_user_who_made_it(tmp_path: Path) -> None:
    url, left = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / ".monday.partial"
    fill_with_release(url, "0.1.0")
    left.mkdir(mode=0o755)  # by a backup that was interrupted
    for name in ("monday", "tuesday"):
        back_up(url, tmp_path / name, now=0)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_two_backups_of_one_name_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    fill_with_release(url, "0.1.0")
    to_disk, refused = backup._to_disk, []

    def meanwhile(path: Path) -> None:
        to_disk(path)
        if path.name == "marks-00000.parquet":
            with pytest.raises(DataError, match="written by another backup") as error:
                back_up(url, tmp_path / "monday", now=0)
            refused.append(error)

    monkeypatch.setattr(backup, "_to_disk", meanwhile)
    backup.verify_files(tmp_path / "monday", back_up(url, tmp_path / "monday", now=0))
    assert refused


def test_what_a_link_leads_to_is_not_removed_for_a_backup(tmp_path: Path) -> None:
    url, elsewhere = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "elsewhere"
    fill_with_release(url, "0.1.0")
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (tmp_path / ".monday.partial").symlink_to(elsewhere)
    with pytest.raises(OSError, match="monday"):
        back_up(url, tmp_path / "monday", now=0)
    assert (elsewhere / "kept").exists()


def test_long_rows_make_more_files_not_larger_ones(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "BYTES_A_FILE", 2_500)
    monkeypatch.setattr(backup, "ROWS_AT_ONCE", 1)
    store = EventStore(store_url)
    store.write([Event(f"e-{place}", "ann", "tea", "click", 1, context="x" * 1_000) for place in range(7)])
    store.close()
    made = back_up(store_url, tmp_path / "backup", now=0)
    assert [file.rows for file in made.tables["events"]] == [3, 3, 1]


def test_a_damaged_backup_is_refused_before_anything_is_written(store_url: str, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path / 'source.db'}"
    fill_with_release(source, "0.1.0")
    back_up(source, tmp_path / "backup", now=0)
    path = tmp_path / "backup" / "events-00000.parquet"
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"events-00000\.parquet is missing or damaged"):
            restore(tmp_path / "backup", store_url)
        path.touch()
    path.write_bytes(content)
    manifest = tmp_path / "backup" / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"revision": "0001"', '"revision": "9999"'), encoding="utf-8")
    with pytest.raises(DataError, match="later release"):
        restore(tmp_path / "backup", store_url)
    for name in ("events", "log_identity", "log_position"):
        tables = {key: files for key, files in json.loads(text)["tables"].items() if key != name}
        manifest.write_text(json.dumps(json.loads(text) | {"tables": tables}), encoding="utf-8")
        with pytest.raises(DataError, match=f"the table {name} is missing"):
            restore(tmp_path / "backup", store_url)
    path.write_bytes(b"PAR1")
    digest = backup.sha256(path)
    manifest.write_text(text.replace(hashlib.sha256(content).hexdigest(), digest), encoding="utf-8")
    with pytest.raises(DataError, match="not readable as Parquet"):
        restore(tmp_path / "backup", store_url)
    path.write_bytes(content)
    manifest.write_text(text, encoding="utf-8")
    restore(tmp_path / "backup", store_url)
    assert store_rows(store_url) == store_rows(source)


def test_a_store_that_holds_anything_is_not_restored_into(store_url: str, tmp_path: Path) -> None:
    store, log = EventStore(store_url), ExperimentLog(store_url)
    store.write([Event("e-1", "ann", "tea", "click", 1)])
    back_up(store_url, tmp_path / "backup", now=0)
    with pytest.raises(DataError, match="holds data"):
        restore(tmp_path / "backup", store_url)
    assert [event.event_id for event in store.events_of("ann")] == ["e-1"]
    store.close()
    log.close()


def test_what_a_service_writes_while_a_backup_is_restored_is_not_deleted(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = f"sqlite:///{tmp_path / 'source.db'}", empty_database(postgres_url)
    for url in (source, target):
        EventStore(url).close()
    back_up(source, tmp_path / "backup", now=0)
    store, count, acknowledged = EventStore(target), restoring._count, []

    def meanwhile(connection: sql.Connection, table: sql.Table) -> int:
        found = count(connection, table)
        if table.name == "events":
            with suppress(DBAPIError):
                with store._writer.begin() as service:
                    service.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
                    row = {"position": 1, "event_id": "e-1", "user_id": "ann", "item_id": "tea", "event": "click"}
                    service.execute(sql.insert(event_rows).values(row | {"timestamp": 1}))
                acknowledged.append("e-1")
        return found

    monkeypatch.setattr(restoring, "_count", meanwhile)
    with suppress(DataError):
        restore(tmp_path / "backup", target)
    assert [event.event_id for event in store.events_of("ann")] == acknowledged
    store.close()


def test_an_empty_store_that_a_service_has_made_is_restored_into(store_url: str, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path / 'source.db'}"
    log = ExperimentLog(source)
    log.write([Exposure("order", "ann", "control", 0, 5, 0.5, known=0)])
    log.close()
    back_up(source, tmp_path / "backup", now=0)
    EventStore(store_url).close()
    restore(tmp_path / "backup", store_url)
    assert store_rows(store_url) == store_rows(source)


def test_text_that_postgresql_cannot_hold_leaves_the_target_as_it_was(postgres_url: str, tmp_path: Path) -> None:
    source, target = f"sqlite:///{tmp_path / 'source.db'}", empty_database(postgres_url)
    store = EventStore(source)
    store.write([Event("e-1", "a\0b", "tea", "click", 1)])
    store.close()
    back_up(source, tmp_path / "backup", now=0)
    with pytest.raises(StoreError, match="NUL"):
        restore(tmp_path / "backup", target)
    assert schema.standing(target)[1] is None


def test_events_of_a_backup_can_be_added_to_another_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*command: str) -> str:
        with pytest.raises(SystemExit) as end:
            cli.main(list(command))
        assert end.value.code in {0, None}, capsys.readouterr().err
        return capsys.readouterr().out

    source, target = (f"sqlite:///{tmp_path / name}" for name in ("source.db", "target.db"))
    fill_with_release(source, "0.1.0")
    directory = tmp_path / "backup"
    assert "of 12 tables" in run("store", "backup", "--store", source, "--output", str(directory))
    assert "3 new events" in run("ingest", *map(str, directory.glob("events-*.parquet")), "--store", target)
    manifest = directory / "manifest.json"
    manifest.write_text(re.sub(r'"made_at": \d+', '"made_at": 1000000000000000', manifest.read_text()))
    assert "rows of 12 tables as of 9999-12-31" in run(
        "store", "restore", "--store", f"sqlite:///{tmp_path / 'third.db'}", "--input", str(directory)
    )
