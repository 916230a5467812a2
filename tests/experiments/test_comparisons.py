"""What is written of each comparison: direction, Bayesian reading, phases, and what is naive."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import ARM, CLICKS, IMPRESSIONS
from samples import PRIMARY, guardrail, measured
from scipy import stats

from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.bayes import beta_posterior
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.moments import moments
from rec_engine.experiments.naive import naive_z


def test_where_lower_is_better_the_lower_arm_is_probably_best() -> None:
    users = measured(2_000, effects={"main": (-0.02,)})
    lower = Metric(name="main", numerator="main", role="primary", higher_is_better=False)
    for metric, is_best in ((PRIMARY, False), (lower, True)):
        found = analyze(Design(metrics=(metric,)), users).find("main", "treatment")
        assert ((found.prob_best or 0) > 0.5) == is_best
        assert ((found.prob_better or 0) > 0.5) == is_best
        assert ((found.expected_loss or 0) > 0.1) != is_best


def test_a_share_of_one_phase_has_a_beta_posterior() -> None:
    converted = (np.arange(400) % 7 < 2 + np.arange(400) % 2).astype(np.float64)
    users = replace(measured(400), totals={"main": converted})
    share = Metric(name="share", numerator="main", is_share=True, role="primary")
    found = analyze(Design(metrics=(share,)), users)
    trials = np.bincount(users.arm).astype(np.float64)
    expected = beta_posterior(np.bincount(users.arm, converted).astype(np.float64), trials)
    assert [figure.prob_best for figure in found.figures] == pytest.approx(expected.prob_best.tolist())
    twice = replace(users, phase=(np.arange(400) % 2).astype(np.int32), shares=np.full((2, 2), 0.5))
    both = analyze(Design(metrics=(share,)), twice).figures[1]
    assert both.prob_best == pytest.approx(expected.prob_best[1], abs=0.05)


def test_a_few_users_harm_no_guardrail_for_good() -> None:
    few = measured(150, effects={"guard": (-0.9,)})
    design = Design(metrics=(PRIMARY, guardrail()), planned_users=4_000)
    assert analyze(design, few).recommendation.action == "continue_running"
    many = measured(250, effects={"guard": (-0.9,)})
    assert analyze(design, many).recommendation.action == "keep_control"


def test_arms_are_shown_for_the_same_mix_of_phases() -> None:
    rng = np.random.default_rng(0)
    phase = np.repeat([0, 1], 5_000).astype(np.int32)
    arm = (rng.random(10_000) < np.where(phase == 0, 0.1, 0.5)).astype(np.int32)
    users = Measurements(
        ("control", "treatment"),
        arm,
        phase,
        np.array([[0.9, 0.1], [0.5, 0.5]]),
        {"main": rng.normal(10, 1, 10_000) + 10 * phase},
        days=10,
    )
    control, treatment = analyze(Design(metrics=(PRIMARY,)), users).figures
    assert control.value == pytest.approx(15, abs=0.1)
    assert treatment.value == pytest.approx(15, abs=0.1)


def test_the_naive_test_is_two_proportions_of_impressions() -> None:
    below = np.bincount(ARM, IMPRESSIONS)
    share = np.bincount(ARM, CLICKS) / below
    pooled = CLICKS.sum() / IMPRESSIONS.sum()
    expected = (share[1] - share[0]) / np.sqrt(pooled * (1 - pooled) * (1 / below).sum())
    assert_allclose(naive_z(moments([CLICKS, IMPRESSIONS], ARM, (1, 2)), 1), expected, rtol=1e-12)


def test_the_detectable_effect_is_found_with_the_design_s_power() -> None:
    found = analyze(Design(metrics=(PRIMARY,), power=0.9), measured(4_000)).find("main", "treatment")
    assert found.mde_now is not None
    assert found.control is not None
    drift = found.mde_now * found.control / (found.se or 1)
    assert stats.norm.sf(stats.norm.isf(0.025) - drift) == pytest.approx(0.9, abs=1e-6)
