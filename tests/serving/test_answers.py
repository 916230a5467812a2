"""The key of a cached answer holds everything that the answer depends on."""

import json
from pathlib import Path

import pytest
from conftest import service

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.utils.config import ServingConfig


def test_every_field_of_a_request_and_every_key_of_its_context_is_part_of_what_tells_it_apart() -> None:
    asked = RecommendRequest.model_validate({"user_id": 4, "context": {"recent_items": [1], "device": "phone"}})
    found = json.loads(asked.canonical)
    assert found.keys() == RecommendRequest.model_fields.keys()
    assert found["context"] == {"recent_items": [1], "device": "phone"}


@pytest.mark.parametrize("difference", ["settings", "items", "history", "nothing"])
def test_what_changes_an_answer_makes_it_anew(bundle: ModelBundle, tmp_path: Path, difference: str) -> None:
    cache, url = InMemoryCache(), f"sqlite:///{tmp_path / 'events.db'}"
    asked = {"user_id": 4, "num_recommendations": 3}
    with service(bundle, EventStore(url), cache) as client:
        client.post("/recommend", json=asked)
        if difference == "items":
            client.post("/items", json={"items": [{"item_id": "new"}]})
        if difference == "history":
            client.post("/feedback", json={"user_id": 4, "item_id": 101, "action": "view"})
    changed = {"recommendations": {"diversity": 0.5}} if difference == "settings" else {}
    with service(bundle, EventStore(url), cache, ServingConfig.model_validate(changed)) as client:
        cached = client.post("/recommend", json=asked).json()["metadata"]["cached"]
    assert cached == (difference == "nothing")


def test_feedback_of_others_leaves_an_answer_as_it_is(bundle: ModelBundle, tmp_path: Path) -> None:
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}")) as client:
        client.post("/recommend", json={"user_id": 4})
        for other in range(10, 20):
            client.post("/feedback", json={"user_id": other, "item_id": 101, "action": "click"})
        assert client.post("/recommend", json={"user_id": 4}).json()["metadata"]["cached"] is True


def test_services_with_other_logs_share_a_cache_and_no_answer(bundle: ModelBundle, tmp_path: Path) -> None:
    cache, asked = InMemoryCache(), {"user_id": "new", "num_recommendations": 5}
    shown = []
    for name, price_below in (("one", 11), ("other", 31)):
        hidden = {"action": "hide", "filter": {"attribute": "price", "below": price_below}}
        with service(bundle, EventStore(f"sqlite:///{tmp_path / name}.db"), cache) as client:
            client.post("/feedback", json={"user_id": "new", "item_id": 101, "action": "click"})
            client.put("/rules/cheap", json=hidden).raise_for_status()
            answer = client.post("/recommend", json=asked).json()
        assert answer["metadata"]["cached"] is False
        shown.append([item["item_id"] for item in answer["recommendations"]])
    assert all(item >= 130 for item in shown[1])
