"""Serve, click, train from the log, promote: the new version knows what happened, and nothing counts twice."""

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import TINY, interactions_frame, items_frame, service, tiny_config
from fastapi.testclient import TestClient

from rec_engine import cli
from rec_engine.bundle import open_bundle
from rec_engine.data.events import EventStore
from rec_engine.errors import DataError
from rec_engine.pipeline.sources import DataFiles, load_source
from rec_engine.pipeline.train import train
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.utils.config import RecommendationSettings

NOW = 1_700_000_000
CONFIG = tiny_config(training={"num_epochs": 1})


@pytest.fixture
def files(tmp_path: Path) -> DataFiles:
    """The small world as files, and where its service keeps its log."""
    interactions_frame().write_parquet(tmp_path / "interactions.parquet")
    items_frame().write_parquet(tmp_path / "items.parquet")
    return DataFiles(
        train=tmp_path / "interactions.parquet",
        items=tmp_path / "items.parquet",
        events=f"sqlite:///{tmp_path / 'events.db'}",
    )


def trained(files: DataFiles, model_dir: Path) -> str:
    source = load_source(None, Path("data"), files, CONFIG, offline=True)
    return train(source.dataset, CONFIG, model_dir, name=source.name, split=source.split).version


def act(client: TestClient, user: int | str, item: int, action: str = "click", at: int = NOW) -> None:
    body = {"user_id": user, "item_id": item, "action": action, "timestamp": at}
    assert client.post("/feedback", json=body).status_code == 200


def profile(client: TestClient, user: int | str) -> dict[str, object]:
    found: dict[str, object] = client.get(f"/user/{user}/profile").json()
    return {name: found[name] for name in ("user_id", "n_interactions", "last_seen", "recent", "favourite_categories")}


def answered_by(client: TestClient) -> str:
    version: str = client.post("/recommend", json={"user_id": 1}).json()["metadata"]["model_version"]
    return version


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_what_the_service_learnt_is_in_the_next_version_once(files: DataFiles, tmp_path: Path) -> None:
    model_dir, users = tmp_path / "models", (4, 5, "new", 7)
    trained(DataFiles(train=files.train, items=files.items), model_dir)
    assert files.events is not None
    with service(open_bundle(model_dir), EventStore(files.events), model_dir=model_dir) as client:
        client.post("/items", json={"items": [{"item_id": 900, "title": "Novel", "attributes": {"price": 2}}]})
        client.post("/items", json={"items": [{"item_id": 100, "title": "Renamed", "categories": ["Even"]}]})
        for place, item in enumerate((101, 900, 103, 105, 100)):
            act(client, "new", item, at=NOW - 100 * place)
        act(client, 4, 101, at=1_600_000_000 + 86_400 * 3)  # late: between what he did in the file
        act(client, 4, 900, "dislike")
        act(client, 7, 900)
        assert client.delete("/user/7").status_code == 200
        act(client, 7, 105)
        before = {user: profile(client, user) for user in users}
        second = trained(files, model_dir)
        wait_until(lambda: answered_by(client) == second)
        assert {user: profile(client, user) for user in users} == before
        act(client, "new", 107)
        assert profile(client, "new")["n_interactions"] == 6
    bundle, log = open_bundle(model_dir), EventStore(files.events)
    assert bundle.manifest.log_position == log.position() - 1
    assert bundle.user_ids.code("new") >= 0
    assert bundle.items.row(bundle.item_ids.code(900), named=True)["title"] == "Novel"
    assert bundle.items.row(bundle.item_ids.code(100), named=True)["title"] == "Renamed"
    counts_nothing_twice(LiveModel(bundle, RecommendationSettings(), log), log)
    log.close()


def counts_nothing_twice(live: LiveModel, log: EventStore) -> None:
    statistics, trained = LiveStatistics(live, log), live.knowledge.popularity.sum()
    assert trained == (live.bundle.history.weights > 0).sum()
    assert statistics.refresh() is True
    assert live.knowledge.popularity.sum() == trained + 1


def test_a_log_alone_can_be_trained_on_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    interactions_frame().write_parquet("past.parquet")
    for section, settings in TINY.items():
        for key, value in settings.items():
            monkeypatch.setenv(f"REC_ENGINE_{section}__{key}".upper(), str(value))
    url = "sqlite:///state/events.db"
    for command in (["ingest", "past.parquet", "--store", url], ["train", "--events", url, "--epochs", "1"]):
        with pytest.raises(SystemExit) as done:
            cli.main(command)
        assert done.value.code == 0, capsys.readouterr().err
    bundle = open_bundle(Path("models"))
    assert (bundle.manifest.log_position, bundle.manifest.dataset) == (
        interactions_frame().height,
        "custom and the log",
    )
    assert len(bundle.history) == interactions_frame().height
    assert bundle.item_ids.ids.dtype == pl.Int64


def test_the_log_comes_on_top_of_a_named_dataset(files: DataFiles) -> None:
    with pytest.raises(DataError, match="no event store"):
        load_source("demo", Path("data"), DataFiles(events=files.events), CONFIG, offline=True)
    assert files.events is not None
    EventStore(files.events).close()
    source = load_source("demo", Path("data"), DataFiles(events=files.events), CONFIG, offline=True)
    assert source.name == "demo and the log"
    with pytest.raises(DataError, match="takes no files"):
        load_source("demo", Path("data"), files, CONFIG, offline=True)
    with pytest.raises(DataError, match="needs --train-data or --events"):
        load_source("custom", Path("data"), DataFiles(), CONFIG, offline=True)
