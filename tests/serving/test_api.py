"""The HTTP contract."""

from pathlib import Path

import pytest
from conftest import N_ITEMS, service
from fastapi.testclient import TestClient

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.serving.cache import InMemoryCache


def recommended(client: TestClient, **body: object) -> list[dict[str, object]]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, object]] = answer.json()["recommendations"]
    return items


def ids(items: list[dict[str, object]]) -> list[int | str]:
    return [item_id for item in items if isinstance(item_id := item["item_id"], int | str)]


def test_known_user_gets_as_many_items_as_wanted_in_descending_order(client: TestClient) -> None:
    items = recommended(client, user_id=4, num_recommendations=7)
    scores = [float(str(item["score"])) for item in items]
    assert len(set(ids(items))) == 7
    assert scores == sorted(scores, reverse=True)


def test_seen_items_are_never_recommended(client: TestClient, bundle: ModelBundle) -> None:
    seen = {bundle.item_ids[code] for code in bundle.history.items_of(bundle.user_ids.code(4))}
    assert not seen & set(ids(recommended(client, user_id=4, num_recommendations=100)))


def test_answer_has_min_of_wanted_and_eligible_items(client: TestClient, bundle: ModelBundle) -> None:
    seen = len(set(bundle.history.items_of(bundle.user_ids.code(4)).tolist()))
    assert len(recommended(client, user_id=4, num_recommendations=100)) == N_ITEMS - seen


def test_filter_that_leaves_three_items_returns_exactly_these(client: TestClient) -> None:
    items = recommended(client, user_id="nobody", num_recommendations=10, filter_categories=["Rare"])
    assert sorted(ids(items), key=str) == [105, 106, 107]


def test_several_categories_mean_any_of_them_whatever_their_case(client: TestClient) -> None:
    items = recommended(client, user_id="nobody", num_recommendations=100, filter_categories=["rare", "EVEN"])
    assert set(ids(items)) == {100 + item for item in range(0, N_ITEMS, 2)} | {105, 107}


def test_excluded_items_are_gone_and_unknown_ones_are_harmless(client: TestClient) -> None:
    items = recommended(
        client, user_id="nobody", filter_categories=["Rare"], exclude_items=[105, "106", "no such item"]
    )
    assert ids(items) == [107]


def test_excluding_everything_leaves_an_empty_answer(client: TestClient) -> None:
    assert recommended(client, user_id="x", filter_categories=["Rare"], exclude_items=[105, 106, 107]) == []


def test_unknown_user_is_answered_from_popularity_and_told_so(client: TestClient, bundle: ModelBundle) -> None:
    answer = client.post("/recommend", json={"user_id": "nobody", "num_recommendations": 5}).json()
    assert answer["metadata"]["user_known"] is False
    assert {item["metadata"]["source"] for item in answer["recommendations"]} <= {"popularity", "recent popularity"}
    counts = [len(set(bundle.history.user_codes[bundle.history.item_codes == bundle.item_ids.code(i)].tolist()))
              for i in ids(answer["recommendations"])]  # fmt: skip
    assert counts == sorted(counts, reverse=True)


def test_recent_items_of_the_context_give_an_unknown_user_a_taste(client: TestClient) -> None:
    asked = {"user_id": "nobody", "use_reranking": False}
    evens = recommended(client, **asked, context={"recent_items": [100, 102, 104, 106, 108]})
    odds = recommended(client, **asked, context={"recent_items": [101, 103, 105, 107, 109]})
    assert sum(int(str(item)) % 2 == 0 for item in ids(evens)) > sum(int(str(item)) % 2 == 0 for item in ids(odds))
    assert not {100, 102, 104, 106, 108} & set(ids(evens))


def test_integer_ids_given_as_text_name_the_same_user(client: TestClient) -> None:
    assert ids(recommended(client, user_id="4")) == ids(recommended(client, user_id=4))


def test_second_equal_request_comes_from_the_cache_and_another_does_not(client: TestClient) -> None:
    body: dict[str, object] = {"user_id": 4, "num_recommendations": 3}
    first, second = (client.post("/recommend", json=body).json() for _ in range(2))
    assert (first["metadata"]["cached"], second["metadata"]["cached"]) == (False, True)
    assert first["recommendations"] == second["recommendations"]
    assert first["request_id"] != second["request_id"]
    for other in ({"filter_categories": ["Rare"]}, {"exclude_items": [105]}, {"use_reranking": False},
                  {"context": {"recent_items": [101]}}, {"num_recommendations": 4}):  # fmt: skip
        assert client.post("/recommend", json=body | other).json()["metadata"]["cached"] is False
    assert client.get("/cache/stats").json()["hits"] == 1


def test_the_cache_names_nobody(bundle: ModelBundle, tmp_path: Path) -> None:
    cache = InMemoryCache()
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}"), cache) as client:
        for user in ("ann of the shop", 'quoted "ann"', 4):
            for _ in range(2):
                answer = client.post("/recommend", json={"user_id": user, "num_recommendations": 2})
                assert answer.json()["user_id"] == user
    stored = b"".join(value for _, value in cache._entries.values())
    assert len(cache._entries) == 3
    assert b"ann" not in stored


def test_similar_items_leave_out_the_item_itself(client: TestClient) -> None:
    answer = client.get("/similar-items/104?num_items=5").json()
    found = ids(answer["similar_items"])
    assert len(set(found)) == 5
    assert 104 not in found


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": 10**30}, "user_id"),
        ({"user_id": 1, "num_recommendations": 0}, "num_recommendations"),
        ({"user_id": 1, "num_recommendations": 101}, "num_recommendations"),
        ({"user_id": 1, "filter_categories": "Rare"}, "filter_categories"),
        ({"user_id": 1, "exclude_items": list(range(1001))}, "exclude_items"),
        ({"user_id": 1, "num_recomendations": 3}, "num_recomendations"),
        ({"user_id": 1, "context": []}, "context"),
    ],
)
def test_bad_requests_are_422_and_name_the_field(client: TestClient, body: dict[str, object], field: str) -> None:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(field)


def test_body_that_is_not_json_is_422(client: TestClient) -> None:
    answer = client.post("/recommend", content=b"{not json", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:rec-engine:problem:invalid-request")


@pytest.mark.parametrize(
    "body",
    [
        rb'{"user_id": "\ud800"}',
        rb'{"user_id": 1, "filter_categories": ["\ud800"]}',
        rb'{"user_id": 1, "context": {"x": "\ud800"}}',
        rb'{"user_id": 1, "\ud800": 2}',
        b'{"user_id": 1, "context": {"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
        b'{"user_id": "\xff"}',
    ],
    ids=["surrogate id", "surrogate category", "surrogate context", "surrogate field", "deep nest", "not UTF-8"],
)
def test_text_that_no_answer_could_hold_is_422(client: TestClient, body: bytes) -> None:
    answer = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_body_beyond_the_bound_is_413(client: TestClient) -> None:
    answer = client.post("/recommend", content=b" " * 1_100_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_chunked_body_is_411(client: TestClient) -> None:
    answer = client.post("/recommend", content=iter([b"{}"]), headers={"content-type": "application/json"})
    assert answer.status_code == 411


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/recommend", 405), ("GET", "/similar-items/9999", 404),
     ("GET", "/similar-items/104?num_items=0", 422), ("GET", "/similar-items/104?num_items=x", 422)],
)  # fmt: skip
def test_every_error_is_problem_json_with_an_id(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["type"].startswith("urn:rec-engine:problem:")


def test_unknown_category_is_404_and_names_the_nearest(client: TestClient) -> None:
    answer = client.post("/recommend", json={"user_id": 1, "filter_categories": ["Rarre"]})
    assert answer.status_code == 404
    assert "Rare" in answer.json()["hint"]


def test_health_ready_status_and_docs_answer(client: TestClient, bundle: ModelBundle) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json() == {"status": "ready", "model_version": bundle.version}
    status = client.get("/model/status").json()
    assert (status["n_items"], status["dataset"]) == (N_ITEMS, "small world")
    assert 0 <= status["metrics"]["ndcg@10"] <= 1
    assert client.get("/docs").status_code == 200


def test_every_answer_carries_its_id_and_time(client: TestClient) -> None:
    headers = client.get("/health").headers
    assert len(headers["x-request-id"]) == 36
    assert float(headers["x-process-time"]) >= 0
