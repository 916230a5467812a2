"""Who meets which arm: reference values, sameness everywhere, independence, and what a ramp does."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proposals import proposed, running
from scipy import stats

from rec_engine.experiments.assignment import assign, assign_all, uniform
from rec_engine.experiments.definition import Experiment, Phase
from rec_engine.experiments.proposal import ProposedArm

NOW = 1_000
USERS = list(range(20_000))


def with_allocation(experiment: Experiment, coverage: float, shares: tuple[float, ...] | None = None) -> Experiment:
    phase = Phase(starts_at=NOW, shares=shares or experiment.phase.shares, coverage=coverage)
    return experiment.model_copy(update={"phases": (*experiment.phases, phase)})


@pytest.mark.parametrize(
    ("salt", "unit", "expected"),
    [
        ("exp1:assign", "u1", 0.12292563741525431),
        ("exp1:assign", "u2", 0.09159806800069059),
        ("new_ranking_v2:assign", "123", 0.8532857877230791),
        ("layer:ranking", "123", 0.8597863428223281),
    ],
)
def test_hashes_are_those_of_the_reference_to_the_bit(salt: str, unit: str, expected: float) -> None:
    assert uniform(salt, unit) == expected


def test_numbers_and_texts_are_the_same_user() -> None:
    experiment = running(proposed())
    assert all(assign(experiment, user, NOW) == assign(experiment, str(user), NOW) for user in range(200))


@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=30),
    st.floats(0.05, 1),
    st.floats(0, 0.5),
    st.floats(0.1, 0.9),
)
def test_many_at_once_are_assigned_as_one_by_one(
    users: list[str], coverage: float, holdout: float, share: float
) -> None:
    experiment = running(proposed(coverage=coverage, holdout=holdout, treatment_percentage=share))
    places = assign_all(experiment, users)
    names = [experiment.arm_names[place] if place >= 0 else None for place in places.tolist()]
    assert names == [assign(experiment, user, NOW).arm for user in users]


def test_four_processes_assign_alike() -> None:
    code = """
import json, sys
from rec_engine.experiments.assignment import assign_all
from rec_engine.experiments.definition import Experiment
print(json.dumps(assign_all(Experiment.model_validate_json(sys.argv[1]), range(3000)).tolist()))
"""
    experiment = running(proposed(coverage=0.5))

    def of_process(seed: int) -> list[int]:
        command = [sys.executable, "-c", code, experiment.model_dump_json()]
        environment = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found: list[int] = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(of_process, range(4)))
    assert all(answer == assign_all(experiment, range(3_000)).tolist() for answer in answers)


def test_a_ramp_only_adds_users_and_moves_none() -> None:
    experiment = running(proposed(coverage=0.01))
    before = assign_all(experiment, USERS)
    for coverage in (0.05, 0.1, 0.25, 0.5, 1.0):
        after = assign_all(with_allocation(experiment, coverage), USERS)
        was_in = before >= 0
        assert (after[was_in] == before[was_in]).all()
        assert abs((after >= 0).mean() - coverage) < 0.015
        before = after


def test_shares_that_change_move_nobody_who_has_met_an_arm() -> None:
    experiment = running(proposed(treatment_percentage=0.1))
    later = with_allocation(experiment, 1.0, (0.5, 0.5))
    met = {user: assign(experiment, user, NOW).arm for user in range(2_000)}
    assert all(assign(later, user, NOW, met=arm).arm == arm for user, arm in met.items())
    assert any(assign(later, user, NOW).arm != arm for user, arm in met.items())  # by hash alone they would move


def test_coverage_and_arm_know_nothing_of_each_other() -> None:
    """With one hash for both, all of 10% covered users would meet the same arm."""
    places = assign_all(running(proposed(coverage=0.1)), USERS)
    share = (places[places >= 0] == 1).mean()
    assert abs(share - 0.5) < 0.05


def test_arms_have_their_shares() -> None:
    arms = tuple(ProposedArm(name=name, share=share) for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)))
    for salt in ("one", "two", "three"):
        counts = np.bincount(assign_all(running(proposed(arms=arms, salt=salt)), USERS), minlength=3)
        assert stats.chisquare(counts, np.array([0.5, 0.3, 0.2]) * len(USERS)).pvalue > 1e-3


def test_experiments_are_independent_of_each_other() -> None:
    arms = [assign_all(running(proposed(experiment_id=f"e{number}")), USERS) for number in range(8)]
    p_values = [
        stats.chi2_contingency(np.histogram2d(one, other, bins=2)[0]).pvalue for one, other in combinations(arms, 2)
    ]
    assert min(p_values) > 0.05 / len(p_values) / 10


def test_parts_of_a_layer_share_no_user() -> None:
    one = running(proposed(layer={"name": "ranking", "first": 0.0, "last": 0.5}))
    other = running(proposed(experiment_id="other", layer={"name": "ranking", "first": 0.5, "last": 1.0}))
    in_one, in_other = assign_all(one, USERS) >= 0, assign_all(other, USERS) >= 0
    assert not (in_one & in_other).any()
    assert (in_one | in_other).all()


def test_the_held_out_are_the_same_of_all_experiments() -> None:
    one, other = running(proposed(holdout=0.1)), running(proposed(experiment_id="other", holdout=0.1))
    assert ((assign_all(one, USERS) < 0) == (assign_all(other, USERS) < 0)).all()
    assert abs((assign_all(one, USERS) < 0).mean() - 0.1) < 0.01


def test_reasons() -> None:
    experiment = running(proposed(targeting={"country": ("de", "fr")}, forced={"tester": "treatment"}))
    assert assign(experiment, "u", NOW).reason == "not targeted"
    assert assign(experiment, "u", NOW, {"country": "us"}).reason == "not targeted"
    assert assign(experiment, "u", NOW, {"country": "de"}).reason == "assigned"
    forced = assign(experiment, "tester", NOW)
    assert (forced.arm, forced.in_experiment, forced.reason) == ("treatment", False, "forced")
    draft = proposed().experiment(NOW)
    assert assign(draft, "u", NOW).reason == "not running"


def test_nobody_takes_part_outside_of_its_dates() -> None:
    experiment = running(proposed(start_date=NOW + 10, end_date=NOW + 20))
    reasons = [assign(experiment, "u", at).reason for at in (NOW, NOW + 10, NOW + 19, NOW + 20)]
    assert reasons == ["not running", "assigned", "assigned", "not running"]
