"""Before and during an experiment over HTTP: what it would take, and what was known of its effects when."""

import time

from fastapi.testclient import TestClient

from rec_engine.experiments.effects_over_time import EffectsOverTime as Effects
from rec_engine.experiments.effects_over_time import Moment
from rec_engine.serving.experiment_schemas import EffectsOverTime

N_PAST_USERS = 120
PROPOSAL = {"experiment_id": "bold", "name": "Bold", "treatment": {"diversity": 0.4}, "minimum_effect": 0.5}


def past(client: TestClient) -> None:
    """Let users be shown items and every third one click."""
    for user in range(N_PAST_USERS):
        answer = client.post("/recommend", json={"user_id": f"u{user}", "num_recommendations": 2}).json()
        if user % 3 == 0:
            item = answer["recommendations"][0]["item_id"]
            event = {"user_id": f"u{user}", "item_id": item, "action": "click", "request_id": answer["request_id"]}
            assert client.post("/feedback", json=event).status_code == 200
    deadline = time.monotonic() + 10
    while len(client.get("/impressions", params={"user_id": f"u{N_PAST_USERS - 1}"}).json()["answers"]) == 0:
        assert time.monotonic() < deadline, "what was shown is not written"
        time.sleep(0.05)


def test_a_plan_says_how_many_users_and_days_and_creates_nothing(client: TestClient) -> None:
    past(client)
    answer = client.post("/experiments/plan", json={"proposal": PROPOSAL, "past_days": 7})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["metric"] == "ctr"
    assert plan["baseline"] == 1 / 6
    assert plan["users_a_day"] == N_PAST_USERS / 7
    assert plan["users_needed"] > N_PAST_USERS
    assert plan["days"] % 7 == 0
    assert client.get("/experiments").json() == []
    larger = client.post("/experiments/plan", json={"proposal": {**PROPOSAL, "minimum_effect": 1.0}}).json()
    assert larger["users_needed"] < plan["users_needed"]


def test_a_plan_needs_a_past_and_an_ab_test(client: TestClient) -> None:
    answer = client.post("/experiments/plan", json={"proposal": PROPOSAL})
    assert answer.status_code == 422
    assert "at least 100 are needed" in answer.json()["detail"]
    bandit = {"experiment_id": "b", "name": "b", "kind": "bandit", "treatment": {"diversity": 0.4}}
    assert client.post("/experiments/plan", json={"proposal": bandit}).status_code == 422


def test_effects_of_a_test_that_has_just_begun_are_none_yet_and_others_have_none(client: TestClient) -> None:
    assert client.get("/experiments/bold/effects").status_code == 404
    client.post("/experiments", json=PROPOSAL)
    client.post("/experiments/bold/start", json={})
    past(client)
    assert client.get("/experiments/bold/effects").json() == {"moments": [], "missing": None}
    lists = {"experiment_id": "lists", "name": "lists", "kind": "interleaving", "treatment": {"use_reranking": False}}
    client.post("/experiments", json=lists)
    client.post("/experiments/lists/start", json={})
    assert client.get("/experiments/lists/effects").status_code == 422


def test_effects_are_told_in_the_order_of_time() -> None:
    told = EffectsOverTime.of(Effects([Moment(20, (), is_look=True), Moment(10, (), is_look=False)]))
    assert [(each.timestamp, each.is_look) for each in told.moments] == [(10, False), (20, True)]
