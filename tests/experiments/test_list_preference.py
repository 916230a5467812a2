"""What an interleaving comes to: one figure a user, safe to look at, and no verdict of an A/B test."""

import json
from pathlib import Path

import numpy as np
import pytest
from proposals import proposed, running

from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.experiment_log import ExperimentLog, Exposure
from rec_engine.errors import DataError, ExperimentError
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments.confidence_sequence import always_valid_p_value
from rec_engine.experiments.definition import INTERLEAVED, Experiment
from rec_engine.experiments.interleaving import preference
from rec_engine.experiments.list_preference import list_preference
from rec_engine.experiments.measuring import measure
from rec_engine.experiments.planning import plan

DAY = 86_400


def interleaving(**fields: object) -> Experiment:
    return running(proposed(kind="interleaving", reads_service=True, **fields), started_at=1)


def log_of(path: Path, n_users: int, probability: float) -> str:
    """Return a log in which users choose one item of each list, the treatment's with this probability."""
    url, rng = f"sqlite:///{path / 'events.db'}", np.random.default_rng(0)
    store, log = EventStore(url), ExperimentLog(url)
    log.write([Exposure("exp", str(user), INTERLEAVED, 0, 10, 1.0, 0) for user in range(n_users)])
    shown = json.dumps([["1", 0.1, None, 1, "exp/control"], ["2", 0.1, None, 2, "exp/treatment"]])
    store.write([Impression(f"r{user}", str(user), 10, "v", shown, 0) for user in range(n_users)])
    chosen = np.where(rng.random(n_users) < probability, "2", "1").tolist()
    store.write(
        [Event(f"e{user}", str(user), item, "click", 11, request_id=f"r{user}") for user, item in enumerate(chosen)]
    )
    store.close()
    log.close()
    return url


@pytest.mark.parametrize(
    ("probability", "action"), [(0.75, "prefer_treatment"), (0.25, "prefer_control"), (0.5, "continue_running")]
)
def test_the_preferred_arm_is_named(tmp_path: Path, probability: float, action: str) -> None:
    found = list_preference(log_of(tmp_path, 400, probability), interleaving(), 8 * DAY)
    assert (found.users, found.lists, sum(found.chosen)) == (400, 400, 400)
    assert found.recommendation.action == action
    assert found.as_dict()["recommendations"]["action"] == action  # type: ignore[index]
    assert found.preference.preference is not None
    assert found.preference.preference == pytest.approx((found.chosen[1] - found.chosen[0]) / 400)
    if action != "continue_running":
        assert "not by how much" in found.recommendation.next_step


def test_nothing_is_decided_before_its_days_or_of_few_users(tmp_path: Path) -> None:
    url = log_of(tmp_path, 400, 0.9)
    early = list_preference(url, interleaving(), DAY)
    assert (early.recommendation.action, "days" in early.recommendation.reason) == ("continue_running", True)
    late = list_preference(url, interleaving(start_date=7 * DAY), 8 * DAY)  # planned long before anybody could meet it
    assert (late.recommendation.action, "days" in late.recommendation.reason) == ("continue_running", True)
    few = list_preference(log_of(tmp_path / "few", 60, 0.9), interleaving(), 8 * DAY)
    assert (few.recommendation.action, few.cs) == ("continue_running", None)


def test_an_end_without_preference_says_so(tmp_path: Path) -> None:
    ended = interleaving().model_copy(update={"status": "stopped", "stopped_at": 9 * DAY})
    assert list_preference(log_of(tmp_path, 400, 0.5), ended, 20 * DAY).recommendation.action == "no_preference"


def test_choices_that_name_no_list_are_told(tmp_path: Path) -> None:
    url = log_of(tmp_path, 5, 0.5)
    store = EventStore(url)
    found = list_preference(url, interleaving(), 10)  # before anything was chosen
    store.close()
    assert "request_id" in found.health[0]
    assert found.preference.preference is None


def test_looking_every_day_finds_no_preference_where_there_is_none() -> None:
    rng, n_runs, wrong = np.random.default_rng(0), 400, 0
    for _ in range(n_runs):
        side = (rng.random(2_000) < 0.5).astype(np.float64)
        looks = [preference(np.arange(n), 1 - side[:n], side[:n]) for n in range(100, 2_001, 100)]
        p_values = [
            float(always_valid_p_value(each.preference / each.se, each.users / 1_000, 0.05))
            for each in looks
            if each.preference is not None and each.se
        ]
        wrong += min(p_values) < 0.05
    assert wrong / n_runs <= 0.05


def test_it_is_never_read_as_an_ab_test(tmp_path: Path) -> None:
    url = log_of(tmp_path, 10, 0.5)
    with pytest.raises(ExperimentError, match="kind interleaving"):
        measure(url, interleaving(), DAY)
    with pytest.raises(DataError, match="kind interleaving"):
        plan(url, interleaving(), DAY, 1)
    with ABTestManager(store=url) as manager:
        manager.create_experiment("exp", "Test", kind="interleaving", reads_service=True)
        manager.start_experiment("exp")
        assert manager.analyze_experiment("exp")["kind"] == "interleaving"
        assert manager.export_experiment("exp")["looks"] == []
        for refused in (manager.analyze, lambda id_: manager.analyze_metric(id_, "ctr")):
            with pytest.raises(ExperimentError, match="not an A/B test"):
                refused("exp")
        with pytest.raises(ExperimentError, match="the service records"):
            manager.record_impression("exp", 1)
        with pytest.raises(DataError, match="nobody sets the shares"):
            manager.update_experiment_allocation("exp", 0.9)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"reads_service": False}, "needs reads_service"),
        ({"treatment_percentage": 0.2}, "fill half of every list"),
        ({"guardrails": ("ctr",)}, "measures no guardrails"),
        ({"target_metrics": ("ctr",)}, "has no target_metrics"),
        ({"arms": [{"name": str(arm), "share": share} for arm, share in enumerate((0.5, 0.25, 0.25))]}, "two arms"),
        ({"arms": [{"name": name, "share": 0.5} for name in ("one", "interleaved")]}, "none of them called"),
    ],
)
def test_what_cannot_be_interleaved_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        proposed(**{"kind": "interleaving", "reads_service": True, **fields}).experiment(0)
