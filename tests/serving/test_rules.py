"""The shop's own rules: followed by every worker, for as long as they are set, and never against what may be shown."""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import N_ITEMS, items_frame, service
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.events import EventStore
from rec_engine.data.rules import RuleChange, StoredRules
from rec_engine.data.state import COLD
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.serving.api import create_app
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.engine import Engine
from rec_engine.serving.rule_schemas import MAX_RULES
from rec_engine.serving.rules import RuleBook
from rec_engine.serving.segments import Segments
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.config import RecommendationSettings, ServingConfig

ITEM_IDS = list(range(100, 100 + N_ITEMS))
RARE = {"attribute": "categories", "any_of": ["Rare"]}


@pytest.fixture
def workers(model_dir: Path, store_url: str) -> Iterator[list[TestClient]]:
    """Two server processes' worth of service over one log and one cache."""
    cache = InMemoryCache()
    with (
        service(open_bundle(model_dir), EventStore(store_url), cache) as first,
        service(open_bundle(model_dir), EventStore(store_url), cache) as second,
    ):
        yield [first, second]


def put(client: TestClient, rule_id: str, **rule: object) -> dict[str, object]:
    answer = client.put(f"/rules/{rule_id}", json=rule)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def ask(client: TestClient, user: object = "new", n: int = 5, **body: object) -> dict[str, dict[str, object]]:
    answer = client.post("/recommend", json={"user_id": user, "num_recommendations": n} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, dict[str, object]] = answer.json()
    return found


def items(answer: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = answer["recommendations"]  # type: ignore[assignment]
    return found


def shown(client: TestClient, user: object = "new", n: int = 5, **body: object) -> list[object]:
    return [item["item_id"] for item in items(ask(client, user, n, **body))]


def why_not(client: TestClient, item: int, user: object = "new", n: int = 5) -> dict[str, object]:
    found: dict[str, object] = client.get(
        "/debug/why-not", params={"user_id": str(user), "item_id": item, "num_recommendations": n}
    ).json()
    return found


def test_a_rule_is_followed_by_the_next_answer_of_every_worker_until_it_is_deleted(workers: list[TestClient]) -> None:
    first, second = workers
    before = shown(second)
    put(first, "sale", action="pin", items=[139, 105], positions=[1, 3])
    for worker in workers:
        assert shown(worker) == [139, before[0], 105, before[1], before[2]]
    put(second, "sale", action="pin", items=[105])
    for worker in workers:
        assert shown(worker)[0] == 105
    assert first.delete("/rules/sale").status_code == 204
    for worker in workers:
        assert shown(worker) == before
        assert worker.get("/rules").json() == {"rules": []}


def test_rules_survive_a_restart(bundle: ModelBundle, store_url: str) -> None:
    with service(bundle, EventStore(store_url)) as client:
        put(client, "sale", action="pin", items=[139])
        put(client, "gone", action="hide", items=[139])
        client.delete("/rules/gone")
    with service(bundle, EventStore(store_url)) as client:
        assert shown(client)[0] == 139
        assert [rule["rule_id"] for rule in client.get("/rules").json()["rules"]] == ["sale"]


def test_boosted_items_rise_buried_ones_sink_and_scores_stay(client: TestClient) -> None:
    before = {item["item_id"]: item["score"] for item in items(ask(client, 4, 100))}
    order = list(before)
    put(client, "up", action="boost", by=20, items=[order[-1]])
    put(client, "down", action="bury", by=20, items=[order[0]])
    after = {item["item_id"]: item["score"] for item in items(ask(client, 4, 100))}
    assert list(after) == [order[-1], *order[1:-1], order[0]]
    assert after == before
    put(client, "back", action="boost", by=20, items=[order[0]])
    assert shown(client, 4, 100)[:2] == [order[-1], order[0]]


def test_a_rule_by_filter_reads_items_as_they_are_now(client: TestClient) -> None:
    put(client, "rare", action="hide", filter=RARE)
    assert not {105, 106, 107} & set(shown(client, n=100))
    client.post("/items", json={"items": [{"item_id": 105}, {"item_id": 110, "categories": ["Rare"]}]})
    assert 105 in shown(client, n=100)
    assert 110 not in shown(client, n=100)
    put(client, "novel", action="pin", items=["novel"])
    assert client.get("/rules").json()["rules"][0]["problem"] == "nobody knows 'novel'"
    client.post("/items", json={"items": [{"item_id": "novel"}]})
    assert shown(client)[0] == "novel"
    assert client.get("/rules").json()["rules"][0]["problem"] is None


def test_no_pin_shows_what_may_not_be_shown(client: TestClient) -> None:
    put(client, "sale", action="pin", items=[105])
    assert shown(client, filter_categories=["Even"])[0] != 105
    assert 105 not in shown(client, n=100, filter_categories=["Even"])
    assert 105 not in shown(client, n=100, exclude_items=[105])
    assert 105 not in shown(client, n=100, filter={"attribute": "price", "below": 2})
    client.post("/feedback", json={"user_id": "new", "item_id": 105, "action": "click"})
    assert 105 not in shown(client, n=100)
    assert shown(client, "other")[0] == 105
    put(client, "not-now", action="hide", items=[105])
    assert 105 not in shown(client, "other", 100)


rules = st.one_of(
    st.builds(
        lambda items, positions, priority: {
            "action": "pin",
            "items": items,
            "positions": positions[: len(items)],
            "priority": priority,
        },
        st.lists(st.sampled_from([*ITEM_IDS, "nobody knows it"]), min_size=1, max_size=4, unique=True),
        st.lists(st.integers(1, 14), min_size=4, max_size=4, unique=True),
        st.integers(-1, 1),
    ),
    st.builds(
        lambda action, by, items: {"action": action, "by": by, "items": items},
        st.sampled_from(["boost", "bury"]),
        st.floats(0.1, 20),
        st.lists(st.sampled_from(ITEM_IDS), min_size=1, max_size=6),
    ),
    st.builds(
        lambda items: {"action": "hide", "items": items}, st.lists(st.sampled_from(ITEM_IDS), min_size=1, max_size=6)
    ),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(rules, max_size=4),
    n=st.integers(1, 15),
    user=st.sampled_from(["new", 4, 7]),
    options=st.sampled_from([{}, {"diversity": 0.5}, {"use_reranking": False}, {"filter_categories": ["Odd"]}]),
)
def test_whatever_the_rules_answers_are_complete_and_pages_repeat_nothing(
    client: TestClient, drawn: list[dict[str, object]], n: int, user: object, options: dict[str, object]
) -> None:
    for known in client.get("/rules").json()["rules"]:
        client.delete(f"/rules/{known['rule_id']}")
    eligible = set(shown(client, user, 100, **options))
    for place, rule in enumerate(drawn):
        put(client, f"rule-{place}", **rule)
        if rule["action"] == "hide":
            eligible -= set(rule["items"])  # type: ignore[call-overload]
    pages: list[object] = []
    cursor: object = None
    while True:
        answer = ask(client, user, n, cursor=cursor, **options)
        page = [item["item_id"] for item in items(answer)]
        assert len(page) == min(n, len(eligible) - len(pages))
        pages += page
        if (cursor := answer["metadata"]["next_cursor"]) is None:
            break
    assert len(pages) == len(set(pages))
    assert set(pages) == eligible
    pins = [
        (item, position)
        for rule in drawn
        if rule["action"] == "pin"
        for item, position in zip(rule["items"], rule["positions"], strict=True)  # type: ignore[call-overload]
        if item in eligible
    ]
    are_at_odds = any(len({pin[part] for pin in pins}) < len(pins) for part in (0, 1))
    for item, position in pins:
        if position <= len(eligible) and not are_at_odds:
            assert pages[position - 1] == item


@pytest.fixture
def timed(bundle: ModelBundle, tmp_path: Path) -> Iterator[tuple[TestClient, Callable[[float], None]]]:
    """A service whose clock is set by the test, and how to set it."""
    moment = [1_700_000_000.0]
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    engine = Engine(bundle, ServingConfig(), InMemoryCache(), store, Telemetry(), clock=lambda: moment[0])

    def set_to(seconds: float) -> None:
        moment[0] = seconds

    with TestClient(create_app(engine), "http://127.0.0.1") as client:
        yield client, set_to


def test_a_rule_holds_from_its_start_to_its_end_and_no_cached_answer_outlives_that(
    timed: tuple[TestClient, Callable[[float], None]],
) -> None:
    client, set_to = timed
    start, end = 1_700_000_010, 1_700_000_020
    ends = "2023-11-14T22:13:40Z"
    view = put(client, "sale", action="pin", items=[139], starts_at=start, ends_at=ends)
    assert view["state"] == "to come"
    pinned_at = {}
    for at in (start - 1, start - 0.5, start, end - 1, end - 0.5, end, end + 100):
        set_to(at)
        first, second = ask(client), ask(client)
        assert second["metadata"]["cached"] is True
        assert items(first) == items(second)
        pinned_at[at] = items(first)[0]["item_id"] == 139
    assert [at for at, is_pinned in pinned_at.items() if is_pinned] == [start, end - 1, end - 0.5]
    assert client.get("/rules").json()["rules"][0]["state"] == "over"


def test_rules_hold_for_the_users_and_categories_that_they_name(client: TestClient) -> None:
    put(client, "de", action="pin", items=[139], applies_to={"users": {"attribute": "country", "equals": "de"}})
    put(client, "unknown", action="pin", items=[138], applies_to={"users": {"attribute": "country", "is_null": True}})
    put(client, "odd", action="pin", items=[137], priority=1, applies_to={"categories": [" oDD"]})
    assert [shown(client, user)[0] == 139 for user in (2, 4, 6, 8, "new")] == [True, True, False, True, False]
    assert shown(client, "new")[0] == 138
    assert shown(client, 2, filter_categories=["Odd", "Rare"])[:2] == [137, 139]
    assert ask(client, 2)["metadata"]["rules"] == ["de"]
    assert client.delete("/user/2").status_code == 200
    assert shown(client, 2)[0] == 138


def test_an_explanation_names_the_rules_and_what_they_asked(client: TestClient) -> None:
    put(client, "sale", action="pin", items=[139], positions=[2])
    put(client, "odd", action="boost", by=1.5, filter={"attribute": "categories", "any_of": ["odd"]})
    found = ask(client, 4, explain=True, use_reranking=False)
    assert found["metadata"]["rules"] == ["odd", "sale"]
    effects: list[list[dict[str, object]]] = [item["why"]["rules"] for item in items(found)]  # type: ignore[index]
    boosted = {"rule_id": "odd", "action": "boost", "position": None, "log_odds": 1.5}
    assert effects[1] == [{"rule_id": "sale", "action": "pin", "position": 2, "log_odds": None}, boosted]
    for place, item in enumerate(items(found)):
        is_odd = "Odd" in str(item["categories"])
        assert (boosted in effects[place]) == is_odd


def test_an_item_that_only_a_rule_brought_in_says_so(bundle: ModelBundle, tmp_path: Path) -> None:
    config = ServingConfig(recommendations=RecommendationSettings(min_candidates=1, candidate_multiplier=1))
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}"), config=config) as client:
        offered = ask(client, "new", 1)["metadata"]["num_candidates"]
        missed = next(item for item in ITEM_IDS if why_not(client, item, n=1)["step"] == "recall")
        put(client, "sale", action="pin", items=[missed])
        answer = ask(client, "new", 1)
        assert answer["metadata"]["num_candidates"] == int(str(offered)) + 1
        assert items(answer)[0]["item_id"] == missed
        assert items(answer)[0]["explanation"] == "chosen by the shop"
        assert items(answer)[0]["metadata"]["source"] == "pinned"  # type: ignore[index]


def test_why_not_says_what_rules_did_to_an_item(client: TestClient) -> None:
    order = shown(client, 4, 100)
    put(client, "hidden", action="hide", items=[order[0]])
    put(client, "down", action="bury", by=20, items=[order[1]])
    put(client, "sale", action="pin", items=[order[-1], order[-2]], positions=[1, 9])
    ids = {name: int(str(item)) for name, item in zip(("hidden", "down", "far", "pinned"), (*order[:2], *order[-2:]))}  # noqa: B905
    found = {name: why_not(client, item, user=4) for name, item in ids.items()}
    assert (found["hidden"]["step"], found["hidden"]["detail"]) == ("rules", "a rule hides it")
    assert (found["pinned"]["step"], found["pinned"]["detail"]) == (
        "shown",
        "it is shown at place 1, where the rule sale pins it",
    )
    assert (found["far"]["step"], found["far"]["detail"]) == ("arrange", "a rule pins it to a place further down")
    assert found["down"]["step"] == "rank"
    assert float(str(found["down"]["score"])) < float(str(found["down"]["needed"]))
    for name, action in (("hidden", "hide"), ("down", "bury"), ("far", "pin"), ("pinned", "pin")):
        assert [rule["action"] for rule in found[name]["rules"]] == [action]  # type: ignore[attr-defined]
    displaced = why_not(client, int(str(order[6])), user=4)
    assert displaced["rules"] == []
    assert why_not(client, int(str(order[2])), user=4)["detail"] == "it is shown at place 2"


def test_a_pinned_item_is_logged_as_certain_beside_what_exploration_drew(bundle: ModelBundle, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    config = ServingConfig(recommendations=RecommendationSettings(exploration=5.0))
    with service(bundle, EventStore(f"sqlite:///{path}"), config=config) as client:
        put(client, "sale", action="pin", items=[139], positions=[2])
        answers = {answer["request_id"]: answer for answer in (ask(client) for _ in range(5))}
    with closing(sqlite3.connect(path)) as log:
        rows = log.execute("SELECT request_id, shown FROM impressions").fetchall()
    assert len(rows) == 5
    for request_id, text in rows:
        logged = json.loads(text)
        assert [item_id for item_id, *_ in logged] == [item["item_id"] for item in items(answers[request_id])]
        assert (logged[1][0], logged[1][2]) == (139, 1.0)
        assert all(0 < propensity < 1 for place, (_, _, propensity, _) in enumerate(logged) if place != 1)


def test_a_dry_run_says_what_putting_the_rules_then_does(client: TestClient) -> None:
    put(client, "old", action="pin", items=[120])
    proposed = {
        "sale": {"action": "pin", "items": [139], "positions": [2]},
        "soon": {"action": "hide", "items": [100], "starts_at": "2200-01-01"},
    }
    users = ["new", 4, 7]
    before = {user: shown(client, user) for user in users}
    asked = {"rules": proposed, "deleted": ["old"], "user_ids": users, "num_recommendations": 5}
    found = client.post("/rules/dry-run", json=asked).json()
    assert {user: shown(client, user) for user in users} == before
    assert [rule["rule_id"] for rule in client.get("/rules").json()["rules"]] == ["old"]
    client.delete("/rules/old")
    for rule_id, rule in proposed.items():
        put(client, rule_id, **rule)
    for user, difference in zip(users, found["users"], strict=True):
        after = shown(client, user)
        assert (difference["user_id"], difference["before"], difference["after"]) == (user, before[user], after)
        assert set(difference["entering"]) == set(after) - set(before[user])
        assert set(difference["leaving"]) == set(before[user]) - set(after)
        assert difference["rules"] == ["sale"]
        for moved in difference["moved"]:
            assert before[user][moved["before"] - 1] == after[moved["after"] - 1] == moved["item_id"]
    assert found["n_entering"] == sum(len(each["entering"]) for each in found["users"]) > 0
    assert found["n_users_changed"] == 3


def test_a_dry_run_looks_at_the_schedules_of_any_moment_and_at_what_is_asked(client: TestClient) -> None:
    later = {"sale": {"action": "pin", "items": [139], "starts_at": 4_000_000_000}}
    for at, place in ((None, 0), (4_000_000_000, 1)):
        found = client.post("/rules/dry-run", json={"rules": later, "user_ids": ["new"], "at": at}).json()
        assert [item == 139 for item in found["users"][0]["after"]][:1] == [bool(place)]
    even = {"rules": {"sale": {"action": "pin", "items": [139]}}, "user_ids": [4], "filter_categories": ["Even"]}
    assert client.post("/rules/dry-run", json=even).json()["n_users_changed"] == 0


@pytest.mark.parametrize(
    ("rule", "status", "reason"),
    [
        ({"action": "pin"}, 422, "items"),
        ({"action": "pin", "items": [1], "positions": [1, 2]}, 422, "positions has one for each"),
        ({"action": "pin", "items": [1, "1"]}, 422, "once in a rule"),
        ({"action": "boost", "by": 1}, 422, "either items or a filter"),
        ({"action": "boost", "by": 0, "items": [1]}, 422, "by"),
        ({"action": "boost", "by": float("inf"), "items": [1]}, 422, "by"),
        ({"action": "hide", "items": [1], "filter": RARE}, 422, "either items or a filter"),
        ({"action": "hide", "items": [1], "starts_at": 5, "ends_at": 5}, 422, "ends_at lies after starts_at"),
        ({"action": "praise", "items": [1]}, 422, "praise"),
        ({"action": "hide", "filter": {"attribute": "prize", "below": 1}}, 404, "prize"),
        ({"action": "hide", "filter": {"attribute": "price", "equals": "cheap"}}, 422, "price"),
        ({"action": "hide", "items": [1], "applies_to": {"users": {"attribute": "age", "below": 9}}}, 404, "age"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused_and_the_reason_named(
    client: TestClient, rule: dict[str, object], status: int, reason: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.put("/rules/bad", content=json.dumps(rule), headers=headers)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text
    dry = json.dumps({"rules": {"bad": rule}, "user_ids": [4]})
    assert client.post("/rules/dry-run", content=dry, headers=headers).status_code == status
    assert client.get("/rules").json() == {"rules": []}


def test_there_are_so_many_rules_and_no_more(bundle: ModelBundle, tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    rule = '{"action": "hide", "items": [139]}'
    store.write([RuleChange(f"r{place}", rule) for place in range(MAX_RULES)])
    with service(bundle, store) as client:
        answer = client.put("/rules/one-more", json=json.loads(rule))
        assert (answer.status_code, "200 rules" in answer.json()["detail"]) == (422, True)
        put(client, "r7", action="hide", items=[138])
        assert client.delete("/rules/one-more").status_code == 404


def test_a_rule_about_what_there_is_not_any_more_asks_nothing_and_says_so() -> None:
    definitions = {
        "filter": '{"action": "hide", "filter": {"attribute": "colour", "equals": "red"}}',
        "users": '{"action": "hide", "items": [139], "applies_to": {"users": {"attribute": "age", "below": 9}}}',
        "later release": '{"action": "praise"}',
        "good": '{"action": "hide", "items": [139]}',
    }
    catalogue, segments = Catalogue(items_frame()), Segments(items_frame().rename({"item_id": "user_id"}))
    book = RuleBook.read(StoredRules(7, definitions), catalogue, segments)
    assert (book.version, book.in_force(0)) == (7, ("filter", "good", "users"))
    found = book.directives(book.in_force(0), [], 0, 0)
    assert [hiding.rule_id for hiding in found.hidings] == ["good"]
    assert [book.view(rule_id, 0).problem is None for rule_id in book.rules] == [False, True, False]


def test_items_that_change_have_rules_read_again_and_nobody_complain_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[logging.LogRecord] = []
    monkeypatch.setattr("rec_engine.serving.rules.logger.handle", told.append)
    definitions = {
        "gone": '{"action": "hide", "filter": {"attribute": "colour", "equals": "red"}}',
        "pin": '{"action": "pin", "items": ["new"]}',
    }
    catalogue = Catalogue(items_frame(), N_ITEMS + 1)
    book = RuleBook.read(StoredRules(7, definitions), catalogue, Segments(items_frame().rename({"item_id": "user_id"})))
    assert book.directives(book.in_force(0), [], 0, 0).pins == ()
    code = catalogue.put("new", {}, is_visible=True)
    book.items_changed()
    assert [pin.item_code for pin in book.directives(book.in_force(0), [], 0, 0).pins] == [code]
    assert ["colour" in record.getMessage() for record in told] == [True]


def test_a_rule_of_a_later_release_can_be_put_anew_and_deleted(bundle: ModelBundle, store: EventStore) -> None:
    other = EventStore(store.url)
    other.write([RuleChange("later", '{"action": "praise"}'), RuleChange("other", '{"action": "praise"}')])
    other.close()
    with service(bundle, store) as client:
        assert client.get("/rules").json()["rules"] == []
        assert client.delete("/rules/later").status_code == 204
        assert client.delete("/rules/later").status_code == 404
        put(client, "other", action="hide", items=[138])
        assert [rule["rule_id"] for rule in client.get("/rules").json()["rules"]] == ["other"]
        assert client.delete("/rules/other").status_code == 204
        assert client.delete("/rules/other").status_code == 404


def test_a_user_of_whom_nothing_is_known_has_no_attributes() -> None:
    segments = Segments(items_frame().rename({"item_id": "user_id"}))
    cheap = {"attribute": "price", "below": 2}
    book = RuleBook.read(
        StoredRules(1, {"cheap": json.dumps({"action": "hide", "items": [1], "applies_to": {"users": cheap}})}),
        Catalogue(items_frame()),
        segments,
    )
    held = [bool(book.directives(("cheap",), [], user, 0).rule_ids) for user in (0, 1, N_ITEMS - 1, COLD)]
    assert held == [True, False, False, False]
