"""Files go into the log whole or not at all, twice is as good as once, and a killed run is finished by the next."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from conftest import service

from rec_engine import cli
from rec_engine.bundle import ModelBundle
from rec_engine.data.data_loader import load_custom
from rec_engine.data.events import Erasure, Event, EventStore, user_hash
from rec_engine.errors import DataError
from rec_engine.pipeline.ingest import IngestReport, ingest
from rec_engine.utils.config import DataSettings

NOW = 1_700_000_000
N_ROWS = 500


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory of the test's own, with batches and chunks of a few rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rec_engine.data.table_batches.BATCH_ROWS", 64)
    monkeypatch.setattr("rec_engine.data.table_batches.BLOCK_BYTES", 4_000)
    monkeypatch.setattr("rec_engine.data.bulk.SMALLEST", 20)
    monkeypatch.setattr("rec_engine.data.bulk.LARGEST", 80)


def past(n_rows: int = N_ROWS) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": [f"u{place % 37}" for place in range(n_rows)],
            "item_id": [100 + place % 23 for place in range(n_rows)],
            "timestamp": [1_600_000_000 + place // 3 for place in range(n_rows)],
            "event": [("view", "click", "purchase")[place % 3] for place in range(n_rows)],
        }
    )


def written(name: str, frame: pl.DataFrame) -> Path:
    path = Path(name)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    return path


def ingested(store: EventStore, *paths: Path, **more: Path) -> IngestReport:
    return ingest(paths, store.url, DataSettings(), now=NOW, rejects_path=more.get("rejects"))


def test_the_same_events_from_any_kind_of_file_are_there_once(store: EventStore) -> None:
    files = [written(f"past{ending}", past()) for ending in (".parquet", ".jsonl", ".csv")]
    reports = [ingested(store, file) for file in files]
    assert [(report.n_new, report.n_known) for report in reports] == [(N_ROWS, 0), (0, N_ROWS), (0, N_ROWS)]
    assert all((report.n_rows, report.n_rejected) == (N_ROWS, 0) for report in reports)
    assert not list(Path().glob("*rejects*"))
    both = ingested(store, *files[:2])
    assert (both.n_rows, both.n_new, both.n_known) == (2 * N_ROWS, 0, 2 * N_ROWS)
    assert store.count(Event) == N_ROWS
    found = store.events_of("u5")
    expected = past().filter(pl.col("user_id") == "u5")
    assert [(each.item_id, each.timestamp, each.event) for each in found] == [
        (str(item), at, event) for item, at, event in expected.select("item_id", "timestamp", "event").rows()
    ]


def test_bad_rows_are_listed_and_the_rest_is_taken(store: EventStore) -> None:
    bad = pl.DataFrame({"user_id": ["u1", None], "item_id": [1, 1], "timestamp": [NOW * 2, 5], "event": ["view"] * 2})
    report = ingested(store, written("past.csv", pl.concat([past(), bad])), rejects=Path("bad.csv"))
    assert (report.n_new, report.n_rejected) == (N_ROWS, 2)
    with Path("bad.csv").open(encoding="utf-8", newline="") as file:
        rejects = list(csv.DictReader(file))
    assert [(row["file"], row["line"]) for row in rejects] == [
        ("past.csv", str(N_ROWS + 2)),
        ("past.csv", str(N_ROWS + 3)),
    ]
    assert [row["reason"].split(" ", 2)[0] for row in rejects] == ["timestamp", "user_id"]


def test_too_many_bad_rows_in_one_file_stop_before_anything_of_any_is_written(store: EventStore) -> None:
    good = written("good.csv", past())
    bad = written("bad.jsonl", past().with_columns(event=pl.when(pl.int_range(pl.len()) > 450).then(pl.lit("stare"))))
    with pytest.raises(DataError, match=r'bad\.jsonl:452: event "stare" is not one of view') as caught:
        ingested(store, good, bad)
    assert "good.rejects.csv for all 49 rows" in caught.value.hint
    assert (store.count(Event), store.position()) == (0, 0)


def test_a_file_in_which_nothing_is_good_is_not_read_to_its_end(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rec_engine.data.rejects.MAX_REJECTS", 100)
    with pytest.raises(DataError) as caught:
        ingested(store, written("bad.parquet", past().with_columns(event=pl.lit("stare"))))
    assert "for all 128 rows" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "user_id,timestamp\n1,2\n", r"a\.csv: events: there is no column item_id"),
        ("a.jsonl", '{"user_id"', r"a\.jsonl:1: not JSON"),
        ("a.txt", "", "cannot be told from its name"),
        ("a.csv", "", "not one row"),
    ],
)
def test_files_that_cannot_be_used_are_named(store: EventStore, name: str, content: str, reason: str) -> None:
    Path(name).write_text(content)
    with pytest.raises(DataError, match=reason):
        ingested(store, Path(name))
    with pytest.raises(DataError, match="no file to read events from"):
        ingested(store)


def test_erased_users_stay_forgotten(store: EventStore) -> None:
    store.write([Erasure("u5", user_hash("u5"))])
    report = ingested(store, written("past.csv", past()))
    n_his = past().filter(pl.col("user_id") == "u5").height
    assert (report.n_new, report.n_erased) == (N_ROWS - n_his, n_his)
    assert store.events_of("u5") == []


def test_events_of_a_file_are_those_that_training_reads_from_it(store: EventStore) -> None:
    repeated = pl.concat([past(), past(50)])
    path = written("past.csv", repeated)
    assert ingested(store, path).n_new == len(load_custom(path).interactions) == N_ROWS


@pytest.mark.parametrize("followed_events", [100, 10_000])
def test_the_next_answer_of_a_running_service_knows_what_was_loaded(
    bundle: ModelBundle, store: EventStore, monkeypatch: pytest.MonkeyPatch, followed_events: int
) -> None:
    monkeypatch.setattr("rec_engine.serving.live.FOLLOWED_EVENTS", followed_events)
    with service(bundle, EventStore(store.url)) as client:
        body = {"user_id": "u5", "num_recommendations": 100}
        before = client.post("/recommend", json=body).json()["recommendations"]
        assert len(before) == 40
        ingested(store, written("past.csv", past()))
        after = {item["item_id"] for item in client.post("/recommend", json=body).json()["recommendations"]}
        met = set(past().filter(pl.col("user_id") == "u5")["item_id"].to_list())
        assert after == {item["item_id"] for item in before} - met
        assert client.get("/user/u5/profile").json()["n_interactions"] == past()["user_id"].to_list().count("u5")


def test_a_run_that_was_killed_is_finished_by_the_same_command(store: EventStore) -> None:
    n_rows = 60_000
    path = written("past.parquet", past(n_rows))
    command = [sys.executable, "-m", "rec_engine", "ingest", str(path), "--store", store.url]
    for n_written in (1, n_rows // 2):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            end = time.monotonic() + 60
            while store.position() < n_written and process.poll() is None:
                assert time.monotonic() < end, "nothing was written"
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
    assert 0 < store.count(Event) < n_rows
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    new, known = (int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:new|known)", done.stdout))
    assert (new + known, store.count(Event)) == (n_rows, n_rows)
    assert known > 0
    ids = pl.concat([pl.DataFrame([each.event_id for each in store.events_of(f"u{user}")]) for user in range(37)])
    assert ids.n_unique() == n_rows


def test_the_command_says_what_it_made_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'state' / 'events.db'}"
    monkeypatch.setitem(os.environ, "REC_ENGINE_STORE__URL", url)
    written("past.csv", pl.concat([past(), past(1).with_columns(user_id=None)]))
    for expected in ("500 new events, 1 rejected, in", "0 new events, 500 known already, 1 rejected, in"):
        with pytest.raises(SystemExit) as done:
            cli.main(["ingest", "past.csv"])
        said = capsys.readouterr()
        assert done.value.code == 0
        assert f"{url}: {expected}" in said.out
        assert "Next:" in said.out
        assert "1 rejected rows are in past.rejects.csv" in said.err
    with pytest.raises(SystemExit) as stopped:
        cli.main(["ingest", "gone.csv", "--store", url])
    assert stopped.value.code == 3
