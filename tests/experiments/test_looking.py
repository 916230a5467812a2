"""Looks: kept when they were planned, once, by whichever worker, and never taken by looking back."""

from collections.abc import Iterator

import pytest

from rec_engine.data.experiment_log import ExperimentLog, Exposure, Measure
from rec_engine.experiments.assignment import assign
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.lifecycle import Lifecycle
from rec_engine.experiments.looking import has_run_out, look
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.results import Analysis

START, DAY = 1_700_000_000, 86_400
PLAN = {
    "experiment_id": "exp",
    "name": "Test",
    "target_metrics": ["conversion_rate"],
    "planned_users": 1_000,
    "planned_looks": 5,
    "min_sample_size": 50,
    "min_days": 0,
}


@pytest.fixture
def log(store_url: str) -> Iterator[ExperimentLog]:
    log = ExperimentLog(store_url)
    yield log
    log.close()


@pytest.fixture
def experiment(log: ExperimentLog) -> Experiment:
    steps = Lifecycle(log, lambda: START)
    steps.create(Proposal.of(**PLAN).experiment(START))
    return steps.start("exp")


def fill(log: ExperimentLog, experiment: Experiment, n_users: int) -> None:
    """Let a user a minute meet his arm; of the treatment nearly all buy, of the control one in ten."""
    for user in range(n_users):
        arm, at = assign(experiment, user, START).arm or "", START + 60 * user
        log.write([Exposure("exp", str(user), arm, 0, at, 0.5, 0)])
        if user % 10 < (9 if arm == "treatment" else 1):
            log.write([Measure("exp", str(user), "buy", "conversions", 1.0, at, 0)])


def told(found: Analysis) -> tuple[str, int, bool]:
    return found.recommendation.action, found.looks_taken, found.look is not None


def test_a_planned_look_is_taken_once_and_decides(log: ExperimentLog, experiment: Experiment) -> None:
    fill(log, experiment, 250)
    assert told(look(log, experiment, START + DAY)) == ("deploy_treatment", 1, True)
    assert told(look(log, experiment, START + DAY + 1)) == ("deploy_treatment", 1, False)
    assert len(log.looks("exp")) == 1


def test_to_look_back_takes_no_look_however_good_that_moment_was(log: ExperimentLog, experiment: Experiment) -> None:
    fill(log, experiment, 250)
    assert told(look(log, experiment, START + DAY, is_kept=False)) == ("continue_running", 0, False)
    assert log.looks("exp") == []
    look(log, experiment, START + DAY)
    assert told(look(log, experiment, START + DAY - 1, is_kept=False)) == ("continue_running", 0, False)
    assert told(look(log, experiment, START + DAY + 1, is_kept=False)) == ("deploy_treatment", 1, False)


def test_a_worker_whose_clock_is_behind_knows_the_looks_of_the_others(
    log: ExperimentLog, experiment: Experiment
) -> None:
    fill(log, experiment, 250)
    look(log, experiment, START + DAY + 30)
    assert told(look(log, experiment, START + DAY)) == ("deploy_treatment", 1, False)


def test_what_was_stopped_before_its_end_does_not_become_complete_when_that_date_comes(
    log: ExperimentLog, experiment: Experiment
) -> None:
    fill(log, experiment, 150)  # too few for the first planned look
    end = START + 7 * DAY
    ending = experiment.model_copy(update={"ends_at": end})
    stopped = ending.model_copy(update={"status": "stopped", "stopped_at": START + DAY})
    assert told(look(log, stopped, end + DAY)) == ("no_clear_winner", 0, False)
    assert told(look(log, ending, end + DAY)) == ("deploy_treatment", 1, True)
    after = stopped.model_copy(update={"stopped_at": end + 5})
    assert [has_run_out(each, end + DAY) for each in (experiment, ending, stopped, after)] == [False, True, False, True]
    assert not has_run_out(ending, end - 1)
