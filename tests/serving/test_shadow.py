"""A version that is tried beside the served one: compared, counted, and never able to touch an answer."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import service
from fastapi.testclient import TestClient

from rec_engine.bundle import current_version, open_bundle
from rec_engine.data.events import EventStore
from rec_engine.errors import DataError, NotFoundError
from rec_engine.registry import ModelRegistry, read_shadow
from rec_engine.serving.answers import Answer
from rec_engine.serving.comparisons import Timed
from rec_engine.serving.live import LiveModel
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.serving.shadow import MAX_WAITING, Job, ShadowMode
from rec_engine.utils.config import ServingConfig


@pytest.fixture
def registry(model_dir: Path, second: Path, tmp_path: Path) -> ModelRegistry:
    """A registry of both, the first one promoted."""
    shutil.copytree(model_dir, tmp_path / "models")
    shutil.copytree(second, tmp_path / "models" / second.name)
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def client(registry: ModelRegistry, tmp_path: Path) -> Iterator[TestClient]:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(open_bundle(registry.model_dir), store, model_dir=registry.model_dir) as client:
        yield client


def status(client: TestClient) -> dict[str, object]:
    answer = client.get("/models/shadow")
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def figure(client: TestClient, name: str) -> float:
    found: dict[str, float] = status(client)["figures"]  # type: ignore[assignment]
    return found[name]


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def ask(client: TestClient, user: object, **body: object) -> dict[str, object]:
    answer = client.post("/recommend", json={"user_id": user, "num_recommendations": 5} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def items(answer: dict[str, object]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = answer["recommendations"]  # type: ignore[assignment]
    return found


def test_another_version_is_compared_and_the_answers_stay_as_they_were(
    client: TestClient, registry: ModelRegistry, second: Path
) -> None:
    users = [4, 7, 8, 11, "new"]
    before = [[item["item_id"] for item in items(ask(client, user))] for user in users]
    assert status(client) == {"version": None, "share": None, "is_tried": False, "failure": None, "figures": None}
    registry.shadow(second.name, 1.0)
    wait_until(lambda: status(client)["is_tried"])
    for user in users:
        assert ask(client, user)["metadata"]["cached"] is True  # type: ignore[index]
    after = [[item["item_id"] for item in items(ask(client, user, explain=True))] for user in users]
    assert after == before
    wait_until(lambda: figure(client, "n_compared") == len(users))
    found: dict[str, float] = status(client)["figures"]  # type: ignore[assignment]
    assert (found["n_failed"], found["n_dropped"]) == (0, 0)
    assert 0 < found["overlap"] < 1
    assert 0 < found["rank_biased_overlap"] < 1
    assert all(seconds > 0 for seconds in found["cpu_seconds"].values())  # type: ignore[attr-defined]
    assert list(found["degraded_share"].values()) == [0, 0]  # type: ignore[attr-defined]
    metrics = client.get("/metrics").text
    assert f'shadow_requests_total{{outcome="compared",version="{second.name}"}} 5.0' in metrics
    registry.stop_shadow()
    wait_until(lambda: status(client)["version"] is None)


def test_a_version_beside_itself_is_the_same_and_knows_the_latest_events_and_rules(
    client: TestClient, registry: ModelRegistry
) -> None:
    registry.shadow(str(current_version(registry.model_dir)), 1.0)
    wait_until(lambda: status(client)["is_tried"])
    client.put("/rules/sale", json={"action": "pin", "items": [139], "positions": [2]})
    client.post("/items", json={"items": [{"item_id": "novel", "title": "Novel"}]})
    client.put("/rules/novel", json={"action": "pin", "items": ["novel"]})
    for turn, item in enumerate((101, 103, 105), start=1):
        client.post("/feedback", json={"user_id": "new", "item_id": item, "action": "click"})
        ask(client, "new")
        wait_until(lambda n=turn: figure(client, "n_compared") == n)  # type: ignore[misc]
    assert (figure(client, "overlap"), figure(client, "rank_biased_overlap")) == (1, 1)


def test_clicks_are_credited_once_to_whichever_model_would_have_shown_the_item(
    client: TestClient, registry: ModelRegistry, second: Path
) -> None:
    registry.shadow(second.name, 1.0)
    wait_until(lambda: status(client)["is_tried"])
    answer = ask(client, "new", num_recommendations=4)
    wait_until(lambda: figure(client, "n_compared") == 1)
    shown = items(answer)
    click = {"user_id": "new", "action": "click", "request_id": answer["request_id"]}
    for item in shown * 2:
        client.post("/feedback", json=click | {"item_id": item["item_id"]})
    client.post("/feedback", json=click | {"item_id": "not shown"})
    client.post("/feedback", json=click | {"item_id": shown[0]["item_id"], "request_id": "another"})
    found: dict[str, object] = status(client)["figures"]  # type: ignore[assignment]
    assert found["n_clicks"] == 4
    assert found["clicks_found"] == pytest.approx(found["overlap"])
    ranks: dict[str, float] = found["click_reciprocal_rank"]  # type: ignore[assignment]
    assert ranks["served"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=1e-5)
    assert ranks["shadow"] <= ranks["served"] + 1e-5


def test_a_damaged_version_is_not_tried_and_the_reason_is_told(
    client: TestClient, registry: ModelRegistry, second: Path
) -> None:
    registry.shadow(second.name, 1.0)
    wait_until(lambda: status(client)["is_tried"])
    for damage in (b"x", None):
        registry.stop_shadow()
        wait_until(lambda: status(client)["version"] is None)
        tower = registry.model_dir / second.name / "user_tower.onnx"
        tower.unlink() if damage is None else tower.write_bytes(damage)
        (registry.model_dir / "shadow").write_text(f'{{"version": "{second.name}", "share": 1.0}}')
        wait_until(lambda: status(client)["failure"])
        assert status(client)["is_tried"] is False
        assert len(items(ask(client, "new"))) == 5
    for nonsense in (b'{"version": "nowhere", "share": 1.0}', b"\xff\xfe", b'{"version": "../models", "share": 9}'):
        (registry.model_dir / "shadow").write_bytes(nonsense)
        wait_until(lambda: status(client)["version"] != second.name)
        assert status(client)["is_tried"] is False
        assert len(items(ask(client, "other"))) == 5


def test_a_version_whose_files_were_on_their_way_is_tried_again_and_no_reader_of_the_log_is_left_open(
    registry: ModelRegistry, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rec_engine.utils.background.FIRST_RETRY_SECONDS", 0.1)
    n_open = 0
    open_store, close_store, assembled = EventStore.__init__, EventStore.close, LiveModel._assembled

    def opening(store: EventStore, url: str) -> None:
        nonlocal n_open
        open_store(store, url)
        n_open += 1

    def closing(store: EventStore) -> None:
        nonlocal n_open
        close_store(store)
        n_open -= 1

    def failing(*_: object) -> None:
        raise MemoryError("no room for the model")

    monkeypatch.setattr(EventStore, "__init__", opening)
    monkeypatch.setattr(EventStore, "close", closing)
    items, aside = registry.model_dir / second.name / "items.parquet", tmp_path / "aside"
    registry.shadow(second.name, 1.0)
    items.rename(aside)
    shadow = ShadowMode(registry.model_dir, ServingConfig(), f"sqlite:///{tmp_path / 'events.db'}")
    wait_until(lambda: "items.parquet" in str(shadow.failure))
    monkeypatch.setattr(LiveModel, "_assembled", failing)
    aside.rename(items)
    wait_until(lambda: "no room" in str(shadow.failure))
    monkeypatch.setattr(LiveModel, "_assembled", assembled)
    wait_until(lambda: shadow.version == second.name)
    assert (shadow.failure, n_open) == (None, 1)
    shadow.close()
    assert n_open == 0


def test_what_a_version_cannot_answer_is_counted_and_nobody_notices(
    client: TestClient, registry: ModelRegistry, second: Path
) -> None:
    registry.shadow(second.name, 1.0)
    wait_until(lambda: status(client)["is_tried"])
    cheap = {"attribute": "price", "at_least": 0}  # the second version's items have no price
    for user in (4, 7, 8):
        assert len(items(ask(client, user, filter=cheap))) == 5
    wait_until(lambda: figure(client, "n_failed") == 3)
    assert "there is no attribute 'price'" in str(status(client)["failure"])
    ask(client, 11)
    wait_until(lambda: figure(client, "n_compared") == 1)


def test_a_share_is_drawn_by_the_request_id_and_what_is_too_much_is_dropped(
    registry: ModelRegistry, second: Path, tmp_path: Path
) -> None:
    registry.shadow(second.name, 0.25)
    shadow = ShadowMode(registry.model_dir, ServingConfig(), f"sqlite:///{tmp_path / 'events.db'}")
    wait_until(lambda: shadow.version == second.name)
    drawn = [request_id for request_id in map(str, range(4_000)) if shadow.wants(request_id)]
    assert len(drawn) == pytest.approx(1_000, abs=120)
    assert all(map(shadow.wants, drawn))
    n_jobs = 3 * MAX_WAITING
    answer = Answer(b"{}", b"[]", 0, is_cached=False, model_version="v")
    for request_id in drawn[:n_jobs]:
        shadow.offer(Job(RecommendRequest(user_id=1), request_id, 0.0, Timed(answer, 0.0)))
    counted: Counter[str] = Counter()

    def count() -> bool:
        for (name, _, *labels), amount in shadow.comparisons.take().items():
            if name == "shadow_requests_total":
                counted[labels[0]] += int(amount)
        return counted.total() == n_jobs

    wait_until(count)
    assert counted["dropped"] > 0
    assert counted["compared"] >= MAX_WAITING
    shadow.close()


def test_the_registry_names_one_version_that_is_there_and_a_share(registry: ModelRegistry, second: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        registry.shadow("nowhere", 0.1)
    for share in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(DataError, match="share"):
            registry.shadow(second.name, share)
    assert read_shadow(registry.model_dir) is None
    registry.shadow(second.name, 0.1)
    assert str(read_shadow(registry.model_dir)) == f"version='{second.name}' share=0.1"
    stopped = registry.stop_shadow()
    assert stopped is not None
    assert stopped.version == second.name
    assert registry.stop_shadow() is None
