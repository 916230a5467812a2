"""Why, why not, filters and pages: all of them readers of one request."""

import base64
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from conftest import N_ITEMS, service
from fastapi.testclient import TestClient
from lightgbm import Booster
from lightgbm.basic import LightGBMError

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.events import EventStore
from rec_engine.utils.config import RecommendationSettings, ServingConfig


def ask(client: TestClient, **body: object) -> dict[str, object]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def items(answer: dict[str, object]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = answer["recommendations"]  # type: ignore[assignment]
    return found


@pytest.fixture
def fresh(model_dir: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A service whose items may be changed."""
    with service(open_bundle(model_dir), EventStore(f"sqlite:///{tmp_path / 'events.db'}")) as client:
        yield client


def test_contributions_add_up_to_the_score(client: TestClient, bundle: ModelBundle) -> None:
    answer = ask(client, user_id=4, num_recommendations=8, explain=True)
    reranked = answer["metadata"]["reranked"]  # type: ignore[index]
    assert reranked == (bundle.ranker is not None)
    for item in items(answer):
        why: dict[str, list[dict[str, float]]] = item["why"]  # type: ignore[assignment]
        assert why["sources"][0]["rank"] is not None
        assert len(why["drawn_by"]) == 3
        if reranked:
            total = float(why["base"]) + sum(part["contribution"] for part in why["contributions"])  # type: ignore[arg-type]
            assert math.isclose(total, float(why["log_odds"]), abs_tol=1e-4)  # type: ignore[arg-type]
            assert math.isclose(1 / (1 + math.exp(-total)), float(str(item["score"])), abs_tol=1e-4)


def test_an_explanation_goes_without_what_lightgbm_fails_to_tell(
    fresh: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise LightGBMError("out of order")

    monkeypatch.setattr(Booster, "predict", failing)
    answer = ask(fresh, user_id=4, num_recommendations=3, explain=True)
    assert answer["metadata"]["degraded"] == ["contributions"]  # type: ignore[index]
    assert [item["why"]["contributions"] for item in items(answer)] == [[]] * 3  # type: ignore[index]
    assert answer["metadata"]["reranked"] is True  # type: ignore[index]


def test_lightgbm_is_loaded_beside_other_requests(fresh: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded_by = []

    def loading() -> ModuleType:
        loaded_by.append(threading.current_thread())
        return import_module("lightgbm")

    monkeypatch.setattr("rec_engine.models.lightgbm_ranker._lightgbm", loading)
    assert ask(fresh, user_id=4)["metadata"]["reranked"] is True  # type: ignore[index]
    assert loaded_by == []
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda user: ask(fresh, user_id=user, explain=True), range(4)):
            pass
    assert len(loaded_by) == 1
    assert "asyncio" in loaded_by[0].name


def test_an_answer_without_items_is_explained_too(client: TestClient) -> None:
    nothing = {"attribute": "price", "below": 0}
    answer = ask(client, user_id=4, filter=nothing, explain=True)
    assert (items(answer), answer["metadata"]["degraded"]) == ([], [])  # type: ignore[index]


def test_without_explain_there_is_no_why(client: TestClient) -> None:
    assert {item["why"] for item in items(ask(client, user_id=4))} == {None}


def test_explaining_changes_no_answer(client: TestClient) -> None:
    plain, explained = ask(client, user_id=4), ask(client, user_id=4, explain=True)
    assert [item["item_id"] for item in items(plain)] == [item["item_id"] for item in items(explained)]


def test_every_item_is_either_shown_or_dropped_at_a_step_that_is_named(client: TestClient) -> None:
    body: dict[str, int | str] = {"user_id": 4, "num_recommendations": 5}
    body |= {"filter_categories": "Even", "exclude_items": 104}
    lists = {"filter_categories": ["Even"], "exclude_items": [104]}
    shown = [item["item_id"] for item in items(ask(client, user_id=4, num_recommendations=5, **lists))]
    steps: dict[int, str] = {}
    for item in range(100, 100 + N_ITEMS):
        answer = client.get("/debug/why-not", params=body | {"item_id": item}).json()
        steps[item] = answer["step"]
        assert (answer["step"] == "shown") == (item in shown)
        if answer["step"] == "rank":
            assert answer["score"] <= answer["needed"]
            assert answer["place"] > 5
    assert steps[101] == "categories"
    assert "history" in steps.values()
    assert steps[104] in {"history", "exclude_items"}


def test_what_is_hidden_or_filtered_out_is_named(fresh: TestClient) -> None:
    fresh.post("/items", json={"items": [{"item_id": 105, "hidden": True}]})
    answer = fresh.get("/debug/why-not?user_id=new&item_id=105").json()
    assert (answer["step"], answer["detail"]) == ("catalogue", "it is hidden or deleted")
    assert fresh.get("/debug/why-not?user_id=new&item_id=nothing").status_code == 404


def test_an_item_that_no_source_offered_is_told_what_was_missing(bundle: ModelBundle, tmp_path: Path) -> None:
    config = ServingConfig(recommendations=RecommendationSettings(min_candidates=1, candidate_multiplier=1))
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}"), config=config) as client:
        found = [
            client.get(f"/debug/why-not?user_id=4&item_id={item}&num_recommendations=1").json()
            for item in range(100, 100 + N_ITEMS)
        ]
    missed = [answer for answer in found if answer["step"] == "recall"]
    assert missed
    assert all("no source offered it" in answer["detail"] for answer in missed)
    assert {view["rank"] for answer in missed for view in answer["sources"]} == {None}


def test_a_filter_leaves_exactly_the_items_of_which_it_is_true(client: TestClient) -> None:
    cheap = {"and": [{"attribute": "price", "below": 11}, {"not": {"attribute": "categories", "any_of": ["odd"]}}]}
    found = items(ask(client, user_id="new", num_recommendations=100, filter=cheap))
    assert {item["item_id"] for item in found} == {100, 102, 104, 106, 108}


@pytest.mark.parametrize(
    ("predicate", "status", "reason"),
    [
        ({"attribute": "prize", "below": 1}, 404, "prize"),
        ({"attribute": "price", "equals": "cheap"}, 422, "price"),
        ({"attribute": "price"}, 422, "filter"),
        ({"below": 3}, 422, "filter"),
        ("cheap", 422, "filter"),
    ],
)
def test_a_filter_that_cannot_be_used_is_named(client: TestClient, predicate: object, status: int, reason: str) -> None:
    answer = client.post("/recommend", json={"user_id": 1, "filter": predicate})
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]


def test_pages_show_every_item_once_and_then_end(client: TestClient) -> None:
    seen: list[object] = []
    cursor: object = None
    while True:
        answer = ask(client, user_id="new", num_recommendations=7, cursor=cursor)
        seen += [item["item_id"] for item in items(answer)]
        cursor = answer["metadata"]["next_cursor"]  # type: ignore[index]
        if cursor is None:
            break
        # What happens between two pages must not bring an item back.
        client.post("/feedback", json={"user_id": "new", "item_id": seen[0], "action": "click"})
    assert len(seen) == len(set(seen)) == N_ITEMS


def test_a_cursor_that_nobody_gave_is_422(client: TestClient) -> None:
    deep, no_list = base64.urlsafe_b64encode(b"[" * 100_000).decode(), base64.urlsafe_b64encode(b'{"1":2}').decode()
    for cursor in ("nonsense", "W3t9XQ==", 7, deep, no_list):
        answer = client.post("/recommend", json={"user_id": 1, "cursor": cursor})
        assert (answer.status_code, answer.json()["detail"][:6]) == (422, "cursor")


def test_caps_and_exploration_come_from_the_settings(bundle: ModelBundle, tmp_path: Path) -> None:
    settings = RecommendationSettings(caps={"categories": 2}, exploration=1.0)
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(bundle, store, config=ServingConfig(recommendations=settings)) as client:
        answers = [items(ask(client, user_id="new", num_recommendations=4)) for _ in range(8)]
    for answer in answers:
        firsts = [item["categories"][0] for item in answer]  # type: ignore[index]
        assert max(firsts.count(name) for name in firsts) <= 2
    assert len({tuple(item["item_id"] for item in answer) for answer in answers}) > 1


def test_an_item_that_has_just_come_has_its_share_of_what_is_drawn(bundle: ModelBundle, tmp_path: Path) -> None:
    n_places = {0.0: 0, 0.5: 0}
    for share in n_places:
        settings = RecommendationSettings(exploration=0.01, new_item_share=share)
        store = EventStore(f"sqlite:///{tmp_path / f'{share}.db'}")
        with service(bundle, store, config=ServingConfig(recommendations=settings)) as client:
            client.post("/items", json={"items": [{"item_id": "just come"}]})
            for _ in range(20):
                shown = items(ask(client, user_id=4, num_recommendations=5))
                n_places[share] += any(item["item_id"] == "just come" for item in shown)
    assert n_places[0.5] > n_places[0.0]
    assert n_places[0.5] >= 5
