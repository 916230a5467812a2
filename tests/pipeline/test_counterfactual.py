"""Versions judged from the log of a real service, beside what they do when they serve."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import N_USERS, service

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.cli import app
from rec_engine.data.events import EventStore
from rec_engine.data.impressions import load_impressions
from rec_engine.errors import DataError
from rec_engine.pipeline.counterfactual import judge_from_log
from rec_engine.utils.config import RecommendationSettings, ServingConfig

EXPLORATION, N_SHOWN, N_ROUNDS = 2.0, 3, 24


def attraction(user: int, item: object) -> float:
    return 0.7 if (int(str(item)) - user) % 2 else 0.2


def served(bundle: ModelBundle, url: str, exploration: float, n_rounds: int) -> list[tuple[int, str, list[object]]]:
    """Return user, request and items of answers to everybody."""
    config = ServingConfig(recommendations=RecommendationSettings(exploration=exploration))
    answers = []
    with service(bundle, EventStore(url), config=config) as client:
        for user in [*range(N_USERS)] * n_rounds:
            answer = client.post("/recommend", json={"user_id": user, "num_recommendations": N_SHOWN}).json()
            answers.append((user, answer["request_id"], [each["item_id"] for each in answer["recommendations"]]))
    return answers


@pytest.fixture(scope="module")
def log(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of answers and, after all of them, clicks: so no answer has changed the next."""
    url = f"sqlite:///{tmp_path_factory.mktemp('log') / 'events.db'}"
    rng = np.random.default_rng(0)
    answers = served(bundle, url, EXPLORATION, n_rounds=N_ROUNDS)
    reactions = [
        {"user_id": user, "item_id": item, "action": "click", "request_id": request}
        for user, request, items in answers
        for item in items
        if rng.random() < attraction(user, item)
    ]
    with service(bundle, EventStore(url)) as client:
        for start in range(0, len(reactions), 500):
            assert client.post("/feedback/batch", json={"events": reactions[start : start + 500]}).status_code == 200
    return url


def test_the_version_that_logged_is_found_to_be_itself(bundle: ModelBundle, log: str) -> None:
    [found] = judge_from_log({"same": bundle}, log, exploration=EXPLORATION, n_positions=N_SHOWN)
    assert found.n_answers == N_ROUNDS * N_USERS
    value = found.value
    assert value.refusals == ()
    assert value.mean_weights == pytest.approx(1, abs=1e-3)
    assert value.effective_users == pytest.approx(N_USERS, rel=1e-3)
    assert value.ips is not None
    assert value.logged is not None
    assert value.ips.mean == pytest.approx(value.logged.mean, rel=1e-3)
    assert value.logged.mean > 0.3 * N_SHOWN


def test_a_policy_earns_what_the_log_of_another_says(bundle: ModelBundle, log: str, tmp_path: Path) -> None:
    other = replace(bundle, ranker=None)
    [found] = judge_from_log({"other": other}, log, exploration=0.5, n_positions=1)
    answers = served(other, f"sqlite:///{tmp_path / 'other.db'}", 0.5, n_rounds=15)
    truth = np.mean([attraction(user, items[0]) for user, _, items in answers])
    value = found.value
    assert value.refusals == ()
    for estimate in (value.ips, value.snips, value.dr):
        assert estimate is not None
        assert abs(estimate.mean - truth) < (estimate.high - estimate.low)  # four standard errors


BESIDES: list[dict[str, object]] = [
    {"filter_categories": ["Odd"]},
    {
        "filter": {
            "and": [{"attribute": "price", "below": 20}, {"not": {"attribute": "categories", "any_of": ["Rare"]}}]
        }
    },
    {"use_reranking": False},
    {"context": {"recent_items": [101, 103], "page": "home"}},
    {},
]


@pytest.fixture(scope="module")
def asked(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of answers that were asked for something besides: of each of them, what the first did not show."""
    url = f"sqlite:///{tmp_path_factory.mktemp('asked') / 'events.db'}"
    config = ServingConfig(recommendations=RecommendationSettings(exploration=EXPLORATION))
    with service(bundle, EventStore(url), config=config) as client:
        for user in [*range(N_USERS)] * 2:
            for besides in BESIDES:
                first = client.post("/recommend", json={"user_id": user, "num_recommendations": N_SHOWN, **besides})
                shown = [each["item_id"] for each in first.json()["recommendations"]]
                second = {"user_id": user, "num_recommendations": N_SHOWN, "exclude_items": shown, **besides}
                assert client.post("/recommend", json=second).status_code == 200
    return url


def test_what_was_asked_besides_is_asked_again(bundle: ModelBundle, asked: str) -> None:
    [found] = judge_from_log({"same": bundle}, asked, exploration=EXPLORATION, n_positions=N_SHOWN)
    assert (found.n_answers, found.n_left_out) == (2 * 2 * len(BESIDES) * N_USERS, 0)
    assert found.value.mean_weights == pytest.approx(1, abs=1e-3)
    assert found.value.effective_users == pytest.approx(N_USERS, rel=1e-3)


def test_what_a_version_cannot_be_asked_is_left_out_and_counted(
    bundle: ModelBundle, second: Path, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    without_prices = open_bundle(second)
    some, whole = judge_from_log(
        {"second": without_prices, "same": bundle}, asked, exploration=EXPLORATION, n_positions=1
    )
    assert some.n_left_out == 2 * 2 * N_USERS
    assert some.n_answers + some.n_left_out == whole.n_answers
    command = ["evaluate", "--off-policy", "--events", asked, "--exploration", "2", "--positions", "1"]
    app([*command, "--compare", f"second:{second}"], result_action="return_value")
    assert "second could not be asked 240 of the requests" in capsys.readouterr().out


def test_plain_requests_are_logged_as_before(log: str) -> None:
    assert load_impressions(log).asked.is_null().all()


def test_only_the_answers_count_that_are_asked_for(bundle: ModelBundle, log: str) -> None:
    some = load_impressions(log).request_ids.to_list()[::N_ROUNDS]
    [found] = judge_from_log({"same": bundle}, log, exploration=EXPLORATION, n_positions=1, request_ids=some)
    assert found.n_answers == len(some) == N_USERS
    with pytest.raises(DataError, match="was drawn"):
        judge_from_log({"same": bundle}, log, exploration=EXPLORATION, n_positions=1, request_ids=["no such"])


def test_a_log_in_which_nothing_was_drawn_has_nothing_to_judge_by(bundle: ModelBundle, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    served(bundle, url, 0.0, n_rounds=1)
    with pytest.raises(DataError, match="none of 60 answers") as caught:
        judge_from_log({"same": bundle}, url, exploration=1.0, n_positions=1)
    assert "exploration above 0" in caught.value.hint


def test_the_command_prints_and_writes_what_was_found(
    model_dir: Path, log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "judged.json"
    command = ["evaluate", "--off-policy", "--events", log, "--exploration", "2", "--positions", "2"]
    app([*command, "--compare", f"now:{model_dir}", "--output-file", str(output)], result_action="return_value")
    printed = capsys.readouterr().out
    assert "clicks on the first 2 items" in printed
    assert "now would have earned" in printed
    assert '"effective_users"' in output.read_text()
