"""Experiments in several workers: a user keeps his arm, whichever of them he meets and whenever shares change."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clocks import START, Clock

from rec_engine.experiments import live_experiments as module
from rec_engine.experiments.assignment import assign
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.live_experiments import SETTLE_SECONDS, LiveExperiments
from rec_engine.experiments.proposal import Proposal


@pytest.fixture
def workers(store_url: str, clock: Clock) -> Iterator[tuple[LiveExperiments, LiveExperiments]]:
    found = LiveExperiments(store_url, clock), LiveExperiments(store_url, clock)
    found[0].lifecycle.create(Proposal.of(experiment_id="exp", name="Test", treatment_percentage=0.1).experiment(0))
    found[0].lifecycle.start("exp")
    yield found
    for each in found:
        each.close()


@pytest.fixture
def worker(tmp_path: Path, clock: Clock) -> Iterator[LiveExperiments]:
    found = LiveExperiments(f"sqlite:///{tmp_path / 'events.db'}", clock)
    yield found
    found.close()


def begun(worker: LiveExperiments, **fields: object) -> Experiment:
    worker.lifecycle.create(Proposal.of(experiment_id="exp", name="Test", **fields).experiment(0))
    return worker.lifecycle.start("exp")


def expose_all(worker: LiveExperiments, experiment: Experiment) -> list[bool]:
    at = int(worker.clock())
    return [
        worker.expose(experiment, str(user), worker.assign(experiment, user, {"country": "fr"}), at)
        for user in range(200)
    ]


def arms(worker: LiveExperiments) -> dict[str, str | None]:
    experiment = worker.lifecycle.get("exp")
    return {str(user): worker.assign(experiment, user).arm for user in range(200)}


def test_users_who_met_an_arm_where_the_change_was_not_known_yet_keep_it(
    workers: tuple[LiveExperiments, LiveExperiments], clock: Clock
) -> None:
    one, late = workers
    before = one.lifecycle.get("exp")
    by_old_shares = arms(one)
    one.lifecycle.allocate("exp", shares=(0.5, 0.5))
    one.refresh()
    assert arms(one) != by_old_shares
    for user, arm in by_old_shares.items():  # the other worker does not know of it for a moment
        late.expose(before, user, late.assign(before, user), int(clock.now))
        assert late.assign(before, user).arm == arm
    clock.now += 1
    changed = one.lifecycle.get("exp")
    for user in by_old_shares:  # and who knows of it shows some of them another arm for that moment
        one.expose(changed, user, one.assign(changed, user), int(clock.now))
    for worker in workers:
        worker.recorder.flush()
    clock.now += SETTLE_SECONDS
    for worker in workers:
        worker.refresh()
        assert arms(worker) == by_old_shares


@pytest.mark.parametrize(
    "fields",
    [{}, {"treatment_percentage": 0.1, "holdout": 0.3}, {"targeting": {"country": ["fr"]}}, {"end_date": START + 100}],
    ids=["coverage", "holdout", "targeting", "end"],
)
def test_who_has_met_it_is_told_what_its_state_says_of_him(
    worker: LiveExperiments, clock: Clock, fields: dict[str, object]
) -> None:
    states = [begun(worker, coverage=0.5, **fields), worker.lifecycle.allocate("exp", coverage=0.9)]
    states += [worker.lifecycle.pause("exp"), worker.lifecycle.resume("exp")]
    for state in states:
        expose_all(worker, state)
        assert not any(expose_all(worker, state))
        for clock.now in (START + 100, START):
            expected = [assign(state, user, clock.now) for user in range(200)]
            assert [worker.assign(state, user) for user in range(200)] == expected


def test_an_arm_that_was_met_is_written_once_and_another_one_too(worker: LiveExperiments) -> None:
    experiment = begun(worker)
    found = worker.assign(experiment, "u")
    other = replace(found, arm="control" if found.arm == "treatment" else "treatment")
    assert [worker.expose(experiment, "u", each, 5) for each in (found, found, other, replace(other))] == [
        True,
        False,
        True,
        False,
    ]
    assert worker.assign(experiment, "u") == found
    resumed = [worker.lifecycle.pause("exp"), worker.lifecycle.resume("exp")][1]
    assert not worker.expose(resumed, "u", other, 6)


def test_who_is_forgotten_is_only_written_again(worker: LiveExperiments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 50)
    experiment = begun(worker)
    assert all(expose_all(worker, experiment))
    assert all(expose_all(worker, experiment))
    worker.recorder.flush()
    assert worker.log.arms_met("exp") == arms(worker)
