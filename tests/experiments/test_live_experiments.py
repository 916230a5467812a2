"""Experiments in several workers: a user keeps his arm, whichever of them he meets and whenever shares change."""

from collections.abc import Iterator

import pytest

from rec_engine.experiments.live_experiments import SETTLE_SECONDS, LiveExperiments
from rec_engine.experiments.proposal import Proposal

START = 1_700_000_000.0


class Clock:
    """A time that passes when it is told to."""

    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workers(store_url: str, clock: Clock) -> Iterator[tuple[LiveExperiments, LiveExperiments]]:
    found = LiveExperiments(store_url, clock), LiveExperiments(store_url, clock)
    found[0].lifecycle.create(Proposal.of(experiment_id="exp", name="Test", treatment_percentage=0.1).experiment(0))
    found[0].lifecycle.start("exp")
    yield found
    for each in found:
        each.close()


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
    late.recorder.flush()
    clock.now += SETTLE_SECONDS
    for worker in workers:
        worker.refresh()
        assert arms(worker) == by_old_shares
