"""Interleaving in the service: lists are filled by both arms, logged with teams, and clicks credited."""

import json
import time
from typing import Any

import sqlalchemy
from conftest import service
from fastapi.testclient import TestClient

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.utils.config import ServingConfig

USERS = range(20)


def begin(client: TestClient, experiment_id: str = "exp", **fields: object) -> None:
    body = {
        "experiment_id": experiment_id,
        "name": "Test",
        "kind": "interleaving",
        "treatment": {"use_reranking": False},
        **fields,
    }
    created = client.post("/experiments", json=body)
    assert created.status_code == 200, created.text
    assert client.post(f"/experiments/{experiment_id}/start", json={}).json()["status"] == "running"


def answer(client: TestClient, user: int, **fields: object) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/recommend", json={"user_id": user, **fields}).json()
    return found


def item_ids(found: dict[str, Any]) -> list[int]:
    return [item["item_id"] for item in found["recommendations"]]


def logged(url: str) -> dict[str, list[list[Any]]]:
    """Return request id to what the log says was shown."""
    time.sleep(0.6)  # impressions are gathered for a moment
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT request_id, shown FROM impressions").fetchall()
    engine.dispose()
    return {request_id: json.loads(shown) for request_id, shown in rows}


def test_lists_are_filled_by_both_arms_and_logged_with_teams(client: TestClient, url: str) -> None:
    alone = {
        arm: {user: item_ids(answer(client, user, use_reranking=arm == "control")) for user in USERS}
        for arm in ("control", "treatment")
    }
    assert alone["control"] != alone["treatment"]
    begin(client)
    found = {user: answer(client, user) for user in USERS}
    shown = logged(url)
    for user, each in found.items():
        assert each["metadata"]["experiment"] == "exp/interleaved"
        picks = shown[each["request_id"]]
        assert [pick[0] for pick in picks] == item_ids(each)
        assert [pick[3] for pick in picks] == list(range(1, len(picks) + 1))
        assert {pick[2] for pick in picks} == {None}
        teams = [pick[4] for pick in picks]
        assert abs(teams.count("exp/control") - teams.count("exp/treatment")) <= 1
        assert all(item in alone[team.removeprefix("exp/")][user] for item, _, _, _, team in picks)
    firsts = [shown[each["request_id"]][0][4] for each in found.values()]
    assert set(firsts) == {"exp/control", "exp/treatment"}


def test_clicks_with_a_request_id_are_credited(client: TestClient, url: str) -> None:
    begin(client)
    wanted = {"exp/control": 0, "exp/treatment": 0}
    found = {user: answer(client, user) for user in USERS}
    shown = logged(url)
    for user, each in found.items():
        item_id, *_, team = shown[each["request_id"]][1]
        wanted[team] += 1
        body = {"user_id": user, "item_id": item_id, "action": "click", "request_id": each["request_id"]}
        assert client.post("/feedback", json=body).status_code == 200
    results = client.get("/experiments/exp/results").json()
    assert (results["kind"], results["users"], results["lists"]) == ("interleaving", len(USERS), len(USERS))
    assert results["chosen"] == [wanted["exp/control"], wanted["exp/treatment"]]
    assert results["recommendations"]["action"] == "continue_running"
    assert "not by how much" in results["purpose"]
    assert "comparisons" not in results


def test_a_kept_answer_is_logged_with_the_same_teams(client: TestClient, url: str) -> None:
    begin(client)
    first, again = answer(client, 1), answer(client, 1)
    assert (first["metadata"]["cached"], again["metadata"]["cached"]) == (False, True)
    shown = logged(url)
    assert shown[first["request_id"]] == shown[again["request_id"]]


def test_later_pages_go_on_without_repeating(client: TestClient) -> None:
    begin(client)
    first = answer(client, 1, num_recommendations=5)
    second = answer(client, 1, num_recommendations=5, cursor=first["metadata"]["next_cursor"])
    assert len({*item_ids(first), *item_ids(second)}) == 10
    assert all(item["why"] for item in answer(client, 1, explain=True)["recommendations"])


def test_why_not_explains_the_list_that_was_shown_and_whose_pick_an_item_is(client: TestClient, url: str) -> None:
    begin(client)
    found = {user: answer(client, user, num_recommendations=4) for user in list(USERS)[:4]}
    explained = answer(client, 1, num_recommendations=4, explain=True)
    shown = logged(url)
    assert [item["why"]["arm"] for item in explained["recommendations"]] == [
        pick[4] for pick in shown[explained["request_id"]]
    ]
    for user, each in found.items():
        asked: dict[str, Any] = {"user_id": user, "num_recommendations": 4}
        for item_id, _, _, place, team in shown[each["request_id"]]:
            why = client.get("/debug/why-not", params={**asked, "item_id": item_id}).json()
            assert (why["step"], why["detail"]) == ("shown", f"it is shown at place {place}, the pick of {team}")
        alone = item_ids(answer(client, user, num_recommendations=40))
        missed = next(item for item in alone if item not in item_ids(each))
        why = client.get("/debug/why-not", params={**asked, "item_id": missed}).json()
        assert why["step"] != "shown"
        assert "exp/control: " in why["detail"]
        assert "exp/treatment: " in why["detail"]


def test_why_not_of_an_answer_that_is_not_kept_goes_by_its_request_id(bundle: ModelBundle, url: str) -> None:
    config = ServingConfig.model_validate({"redis": {"cache_ttl": 0}})
    with service(bundle, EventStore(url), config=config) as client:
        begin(client)
        found = {user: answer(client, user) for user in USERS}
        shown = logged(url)
        for user, each in found.items():
            item_id, *_, team = shown[each["request_id"]][0]
            asked = {"user_id": user, "item_id": item_id, "request_id": each["request_id"]}
            told = client.get("/debug/why-not", params=asked).json()["detail"]
            assert told == f"it is shown at place 1, the pick of {team}"


def test_a_pinned_item_stays_in_its_place(client: TestClient, url: str) -> None:
    client.put("/rules/pin", json={"action": "pin", "items": [139], "positions": [3]})
    to_be_shown = [user for user in USERS if item_ids(answer(client, user))[2] == 139]  # the others have met it
    begin(client)
    found = [answer(client, user) for user in to_be_shown]
    assert {item_ids(each)[2] for each in found} == {139}
    shown = logged(url)
    assert {len(shown[each["request_id"]][2]) for each in found} == {4}  # nobody's pick


def test_forced_users_see_one_arm_alone(client: TestClient) -> None:
    alone = item_ids(answer(client, 5, use_reranking=False))
    begin(client, forced={"5": "treatment"})
    found = answer(client, 5)
    assert (found["metadata"]["experiment"], item_ids(found)) == ("exp/treatment", alone)


def test_it_stands_beside_an_ab_test_of_something_else(client: TestClient) -> None:
    begin(client)
    begin(client, "ab", kind="ab", treatment={"follows_rules": False})
    labels = {answer(client, user)["metadata"]["experiment"] for user in USERS}
    assert labels == {"ab/control exp/interleaved", "ab/treatment exp/interleaved"}
    assert client.get("/experiments/ab/results").json()["users"] != [0, 0]
    other = {"experiment_id": "two", "name": "T", "kind": "interleaving", "treatment": {"diversity": 0.5}}
    refused = client.post("/experiments", json=other)
    assert (refused.status_code, "both fill the lists" in refused.json()["detail"]) == (422, True)


def test_an_arm_that_explores_is_never_kept_and_claims_nothing(client: TestClient, url: str) -> None:
    begin(client, treatment={"exploration": 1.0})
    first, again = answer(client, 1), answer(client, 1)
    assert (first["metadata"]["cached"], again["metadata"]["cached"]) == (False, False)
    assert {pick[2] for pick in logged(url)[first["request_id"]]} == {None}
