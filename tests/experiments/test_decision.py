"""The table of the decision, row by row."""

from dataclasses import replace

import pytest
from samples import PRIMARY, guardrail, measured

from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.design import Design, Metric

DESIGN = Design(metrics=(PRIMARY, guardrail()), planned_users=4_000)
ROWS = {
    "arms not as allotted": (
        DESIGN,
        measured(4_000, shares=(0.55, 0.45), allotted=(0.5, 0.5)),
        "investigate_further",
    ),
    "users in two arms": (DESIGN, replace(measured(4_000), n_conflicting=50), "investigate_further"),
    "a harmed guardrail": (DESIGN, measured(2_500, effects={"main": (0.1,), "guard": (-0.1,)}, days=1), "keep_control"),
    "a win": (DESIGN, measured(4_000, effects={"main": (0.05,)}), "deploy_treatment"),
    "a loss": (DESIGN, measured(4_000, effects={"main": (-0.05,)}), "keep_control"),
    "too few days": (DESIGN, measured(4_000, effects={"main": (0.05,)}, days=3), "continue_running"),
    "too few users": (DESIGN, measured(1_500), "continue_running"),
    "no users": (DESIGN, measured(0), "continue_running"),
    "nothing found": (DESIGN, measured(4_000, seed=3), "no_clear_winner"),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_first_row_that_applies_is_taken(row: str) -> None:
    design, users, action = ROWS[row]
    found = analyze(design, users).recommendation
    assert found.action == action, found.reason
    assert found.reason.endswith(".")
    assert found.next_step


def test_what_was_stopped_too_early_cannot_go_on() -> None:
    few = measured(1_500)
    assert analyze(DESIGN, few).recommendation.action == "continue_running"
    found = analyze(DESIGN, few, is_stopped=True).recommendation
    assert found.action == "no_clear_winner"
    assert found.reason.startswith("It was stopped when 1,500 of the 4,000 planned users were measured")
    assert "another experiment" in found.next_step
    won = measured(4_000, effects={"main": (0.05,)})
    assert analyze(DESIGN, won, is_stopped=True).recommendation.action == "deploy_treatment"


def test_a_broken_sample_ratio_overrides_a_win_and_says_no_effect() -> None:
    users = measured(4_000, effects={"main": (0.2,)}, shares=(0.55, 0.45), allotted=(0.5, 0.5))
    found = analyze(DESIGN, users).recommendation
    assert found.action == "investigate_further"
    assert "%" not in found.reason
    assert found.evidence == ()


def test_a_win_with_an_unsettled_guardrail_is_looked_into_until_it_is_settled() -> None:
    design = Design(metrics=(PRIMARY, guardrail(margin=0.01)), planned_users=4_000)
    won = measured(4_000, effects={"main": (0.05,)}, seed=2)
    found = analyze(design, won).recommendation
    assert found.action == "investigate_further"
    assert "guard is not yet shown to stay within its margin" in found.reason
    wider = Design(metrics=(PRIMARY, guardrail(margin=0.05)), planned_users=4_000)
    assert analyze(wider, won).recommendation.action == "deploy_treatment"


def test_primary_metrics_that_disagree_are_looked_into() -> None:
    other = Metric(name="other", numerator="other", role="primary")
    users = measured(4_000, effects={"main": (0.05,), "other": (-0.05,)})
    found = analyze(Design(metrics=(PRIMARY, other), planned_users=4_000), users).recommendation
    assert found.action == "investigate_further"
    assert "other is worse" in found.reason


def test_where_lower_is_better_a_fall_is_a_win_and_a_rise_harms() -> None:
    latency = Metric(name="main", numerator="main", role="primary", higher_is_better=False)
    down = measured(4_000, effects={"main": (-0.05,)})
    assert analyze(Design(metrics=(latency,), planned_users=4_000), down).recommendation.action == "deploy_treatment"
    up = measured(4_000, effects={"main": (0.05,), "guard": (0.1,)})
    guard = Metric(name="guard", numerator="guard", role="guardrail", higher_is_better=False, margin=0.02)
    assert analyze(Design(metrics=(PRIMARY, guard), planned_users=4_000), up).recommendation.action == "keep_control"


def test_an_effect_too_small_to_matter_is_told_from_too_few_users() -> None:
    users = measured(8_000, seed=3)
    within = analyze(Design(metrics=(PRIMARY,), planned_users=8_000, minimum_effect=0.05), users).recommendation
    assert "smaller than the 5% worth finding" in within.reason
    unsure = analyze(Design(metrics=(PRIMARY,), planned_users=8_000, minimum_effect=0.001), users).recommendation
    assert "can be chance" in unsure.reason
    assert within.action == unsure.action == "no_clear_winner"


def test_of_several_arms_the_best_winner_is_deployed_although_another_one_does_harm() -> None:
    effects = {"main": (0.05, 0.08, -0.05), "guard": (0.0, 0.0, -0.2)}
    users = measured(9_000, effects=effects, shares=(0.25, 0.25, 0.25, 0.25))
    found = analyze(Design(metrics=(PRIMARY, guardrail()), planned_users=9_000), users)
    assert (found.recommendation.action, found.recommendation.arm) == ("deploy_treatment", "arm 2")
    assert any("guard of arm 3" in note for note in found.health)


@pytest.mark.parametrize("method", ["group_sequential", "always_valid", "fixed", "bayesian"])
def test_every_method_finds_what_is_there_and_not_what_is_not(method: str) -> None:
    design = Design.model_validate({"metrics": (PRIMARY,), "planned_users": 4_000, "method": method})
    assert analyze(design, measured(4_000, effects={"main": (0.05,)})).recommendation.action == "deploy_treatment"
    assert analyze(design, measured(4_000, seed=3)).recommendation.action == "no_clear_winner"


@pytest.mark.parametrize(("method", "action"), [("always_valid", "deploy_treatment"), ("fixed", "continue_running")])
def test_before_the_end_only_a_method_made_for_it_decides(method: str, action: str) -> None:
    design = Design.model_validate({"metrics": (PRIMARY,), "planned_users": 40_000, "method": method})
    assert analyze(design, measured(4_000, effects={"main": (0.05,)})).recommendation.action == action
