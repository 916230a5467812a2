"""Experiments in the service: arms are served, logged, measured, and never mixed up by the cache."""

import time
from collections.abc import Callable, Iterator

import pytest
from conftest import service
from fastapi.testclient import TestClient

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import Event, EventStore
from rec_engine.data.experiment_log import ExperimentLog
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.measuring import measure
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.results import Analysis
from rec_engine.serving.served_experiments import GUARD_SECONDS, ServedExperiments, is_guardrail_harmed
from rec_engine.utils.config import RecommendationSettings

USERS = range(60)


def begin(client: TestClient, experiment_id: str = "exp", **fields: object) -> None:
    body = {"experiment_id": experiment_id, "name": "Test", "treatment": {"use_reranking": False}, **fields}
    created = client.post("/experiments", json=body)
    assert created.status_code == 200, created.text
    assert client.post(f"/experiments/{experiment_id}/start", json={}).json()["status"] == "running"


def metadata(client: TestClient, user: int | str, **fields: object) -> dict[str, object]:
    found: dict[str, object] = client.post("/recommend", json={"user_id": user, **fields}).json()["metadata"]
    return found


def measured_of(client: TestClient, url: str, experiment_id: str = "exp") -> Measurements:
    client.get(f"/experiments/{experiment_id}/results")  # writes what is waiting
    log = ExperimentLog(url)
    (version,) = (each for each in log.standing() if each.experiment_id == experiment_id)
    log.close()
    return measure(url, Experiment.model_validate_json(version.definition), 2**40)


def test_users_get_their_arm_and_the_answer_names_it(client: TestClient) -> None:
    assert metadata(client, 1)["experiment"] is None
    begin(client)
    found = {user: metadata(client, user) for user in USERS}
    assert {each["experiment"] for each in found.values()} == {"exp/control", "exp/treatment"}
    assert all(each["reranked"] == (each["experiment"] == "exp/control") for each in found.values())
    for user in (1, 2):
        told = client.get("/experiments/exp/assignment", params={"user_id": user}).json()
        assert f"exp/{told['arm']}" == found[user]["experiment"]


def test_the_cache_keeps_arms_apart_and_an_end_takes_them_away(client: TestClient) -> None:
    before = metadata(client, 1)
    begin(client)
    assert metadata(client, 1)["cached"] is False
    assert metadata(client, 1)["cached"] is True
    client.post("/experiments/exp/stop", json={"reason": "enough"})
    after = metadata(client, 1)
    assert (after["experiment"], after["cached"], before["experiment"]) == (None, True, None)


def test_exposures_impressions_and_feedback_are_measured_by_user(client: TestClient, url: str) -> None:
    begin(client)
    for user in USERS:
        metadata(client, user, num_recommendations=5)
    for action, value in (("click", None), ("purchase", 20.0)):
        body = {"user_id": 3, "item_id": 105, "action": action, "value": value}
        assert client.post("/feedback", json=body).status_code == 200
    time.sleep(0.6)  # impressions are gathered for a moment
    measured = measured_of(client, url)
    assert measured.n_users == len(USERS)
    assert measured.totals["impressions"].tolist() == [5] * len(USERS)
    assert measured.totals["clicks"].sum() == measured.totals["conversions"].sum() == 1
    assert measured.totals["revenue"].sum() == 20
    exposed = client.get("/metrics").text
    assert 'experiment_exposures_total{arm="treatment",experiment="exp"}' in exposed


def test_a_metric_may_be_a_quantile_of_what_feedback_says(client: TestClient) -> None:
    order = {"name": "order value", "numerator": "revenue", "quantile": 0.5}
    begin(client, target_metrics=["ctr", order])
    spent: dict[object, list[float]] = {}
    for user in USERS:
        arm = metadata(client, user)["experiment"]
        for value in (10.0 + user, 13.0 + user):
            body = {"user_id": user, "item_id": 105, "action": "purchase", "value": value}
            assert client.post("/feedback", json=body).status_code == 200
            spent.setdefault(arm, []).append(value)
    told = client.get("/experiments/exp").json()
    assert [each["quantile"] for each in told["design"]["metrics"]] == [None, 0.5]
    (found,) = (
        each for each in client.get("/experiments/exp/results").json()["comparisons"] if each["metric"] == "order value"
    )
    halves = [sorted(spent[f"exp/{arm}"]) for arm in ("control", "treatment")]
    middles = [(half[len(half) // 2 - 1] + half[len(half) // 2]) / 2 for half in halves]
    assert [found["control"], found["treatment"]] == pytest.approx(middles)
    assert "order value" in client.get("/experiments/exp/report").text


def test_an_erased_user_is_not_measured(client: TestClient, url: str) -> None:
    begin(client)
    for user in (1, 2, 3):
        metadata(client, user)
    client.get("/experiments/exp/results")
    client.delete("/user/2")
    assert measured_of(client, url).n_users == 2


def test_only_those_are_met_whom_it_is_for(client: TestClient) -> None:
    begin(client, targeting={"country": ["fr"]})
    found = {user: metadata(client, user)["experiment"] for user in USERS}
    assert {user for user, label in found.items() if label} == {user for user in USERS if user % 3 == 0}
    assert metadata(client, "nobody")["experiment"] is None


def test_forced_users_are_shown_an_arm_and_not_measured(client: TestClient, url: str) -> None:
    begin(client, forced={"5": "treatment", "6": "control"})
    assert [metadata(client, user)["experiment"] for user in (5, 6)] == ["exp/treatment", "exp/control"]
    assert measured_of(client, url).n_users == 0


def test_a_ramp_adds_users_and_moves_none(client: TestClient) -> None:
    begin(client, coverage=0.2)
    before = {user: metadata(client, user)["experiment"] for user in USERS}
    assert client.post("/experiments/exp/ramp", json={"coverage": 1.0}).json()["version"] == 3
    after = {user: metadata(client, user)["experiment"] for user in USERS}
    assert all(after[user] == label for user, label in before.items() if label)
    assert None in before.values()
    assert None not in after.values()
    shrunk = client.post("/experiments/exp/ramp", json={"coverage": 0.5})
    assert (shrunk.status_code, "below 1" in shrunk.json()["detail"]) == (422, True)


def test_results_always_have_an_action(client: TestClient) -> None:
    begin(client)
    metadata(client, 1)
    assert client.get("/experiments/exp/results").json()["recommendations"]["action"] == "continue_running"


def test_the_report_is_a_page_with_the_segments_of_the_model_users(client: TestClient) -> None:
    begin(client)
    for user in USERS:
        metadata(client, user)
    page = client.get("/experiments/exp/report")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "sandbox" in page.headers["content-security-policy"]
    assert "continue_running" in page.text
    assert "country: fr" in page.text
    assert client.get("/experiments/none/report").status_code == 404
    segments = client.get("/experiments/exp/results").json()["segments"]
    assert {(each["attribute"], each["value"]): each["users"] for each in segments} == {
        ("country", "de"): 40,
        ("country", "fr"): 20,
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"treatment": {"model_version": "v2"}}, "no registry to take 'v2' from"),
        ({"treatment": {"caps": {"brand": 1}}}, "recommendations.caps has no 'brand'"),
        ({"treatment": {"colour": "blue"}}, "colour"),
        ({"treatment_percentage": 50}, "treatment_percentage"),
        ({"target_metrics": ["happiness"]}, "no metric 'happiness'"),
        (
            {"guardrails": [{"name": "p", "numerator": "n", "quantile": 0.9, "cap_quantile": 0.9}]},
            "a quantile has no cap_quantile",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(client: TestClient, fields: dict[str, object], said: str) -> None:
    answer = client.post("/experiments", json={"experiment_id": "bad", "name": "Bad", **fields})
    assert 400 <= answer.status_code < 500
    assert said in answer.json()["detail"]


def test_states_and_clashes_are_told(client: TestClient) -> None:
    begin(client)
    again = client.post("/experiments/exp/start", json={})
    assert (again.status_code, "it is running" in again.json()["detail"]) == (409, True)
    body = {"experiment_id": "two", "name": "Two", "treatment": {"use_reranking": False}}
    clash = client.post("/experiments", json=body)
    assert (clash.status_code, "both vary use_reranking" in clash.json()["detail"]) == (422, True)
    assert client.put("/experiments/exp", json=body).status_code == 409
    assert client.get("/experiments/none").status_code == 404
    begin(client, "other", treatment={"diversity": 0.5})
    assert metadata(client, 1)["experiment"] in {f"exp/{a} other/{b}" for a in ARMS for b in ARMS}
    assert {each["experiment_id"] for each in client.get("/experiments").json()} == {"exp", "other"}


ARMS = ("control", "treatment")


def test_an_arm_without_rules_follows_none(client: TestClient) -> None:
    client.put("/rules/pin", json={"action": "pin", "items": [139], "positions": [1]})
    begin(client, treatment={"follows_rules": False})
    found = {metadata(client, user)["experiment"]: metadata(client, user)["rules"] for user in USERS}
    assert found == {"exp/control": ["pin"], "exp/treatment": []}


def test_another_worker_knows_within_a_second(bundle: ModelBundle, url: str) -> None:
    with service(bundle, EventStore(url)) as one, service(bundle, EventStore(url)) as other:
        begin(one)
        until = time.monotonic() + 5
        while metadata(other, 1)["experiment"] is None and time.monotonic() < until:
            time.sleep(0.1)
        assert metadata(other, 1)["experiment"] == metadata(one, 1)["experiment"]


@pytest.fixture
def workers(url: str) -> Iterator[tuple[ServedExperiments, ServedExperiments]]:
    """Two workers with the same clock, and an experiment that runs and has a guardrail."""
    found = ServedExperiments(url, RecommendationSettings()), ServedExperiments(url, RecommendationSettings())
    experiment = Proposal.of(
        experiment_id="exp", name="Test", guardrails=["conversion_rate"], target_metrics=["ctr"], reads_service=True
    ).experiment(0)
    found[0]._live.lifecycle.create(experiment)
    found[0]._live.lifecycle.start("exp")
    yield found
    for each in found:
        each.close()


def test_a_harmed_guardrail_stops_the_experiment(
    workers: tuple[ServedExperiments, ServedExperiments], url: str
) -> None:
    served, _ = workers
    harm(served, url)
    found = served._look("exp")
    assert is_guardrail_harmed(served.get("exp"), found), found.recommendation
    served._watch_guardrails()
    assert served.get("exp").status == "stopped"
    assert served._live.lifecycle.history("exp")[-1].actor == "the service"
    assert served.treatments.of(1, dict).label is None


def test_one_of_two_workers_looks_at_guardrails_and_the_other_takes_over(
    workers: tuple[ServedExperiments, ServedExperiments], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[int, str]] = []
    now = time.time()
    for place, each in enumerate(workers):
        each._live.refresh()
        real = each._look
        monkeypatch.setattr(each, "_clock", lambda: now)

        def noted(experiment_id: str, place: int = place, real: Callable[[str], Analysis] = real) -> Analysis:
            looks.append((place, experiment_id))
            return real(experiment_id)

        monkeypatch.setattr(each, "_look", noted)
    for worker in (0, 1, 0, 1):
        workers[worker]._watch_guardrails()
    assert looks == [(0, "exp")]
    now += GUARD_SECONDS  # the first one has died
    workers[1]._watch_guardrails()
    assert looks == [(0, "exp"), (1, "exp")]


def test_a_treatment_is_made_once_for_all_users_of_the_same_arms(
    workers: tuple[ServedExperiments, ServedExperiments],
) -> None:
    served, _ = workers
    some = {"experiment_id": "some", "name": "Some", "coverage": 0.5, "holdout": 0.5, "reads_service": True}
    served._live.lifecycle.create(Proposal.of(**some).experiment(0))
    served._live.lifecycle.start("some")
    found = [served.treatments.of(user, dict) for user in USERS]
    assert {each.label for each in found if " " not in (each.label or "")} == {"exp/control", "exp/treatment"}
    assert len({each.label for each in found}) == 6
    assert len({id(each) for each in found}) == 6  # however they stay out of one of the two


def harm(served: ServedExperiments, url: str) -> None:
    """Let 8,000 users meet their arms; all of the control's buy, and hardly any of the treatment's."""
    now, store = int(time.time()), EventStore(url)
    events = []
    for user in range(8_000):
        treatment = served.treatments.of(user, dict)
        served.treatments.met(user, treatment)
        if (treatment.label or "").endswith("control") and user % 2:
            events.append(Event(f"buy-{user}", str(user), "1", "purchase", now, 1.0))
    store.write(events)
    store.close()
