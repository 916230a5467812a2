"""From users' totals to a recommendation."""

import json

import numpy as np

from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.measurements import Measurements

CTR = Metric(name="ctr", numerator="clicks", denominator="impressions", role="primary")


def world(n_users: int, *, lift: float = 0.0, seed: int = 0, days: int = 14) -> Measurements:
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, n_users).astype(np.int32)
    impressions = rng.integers(5, 15, n_users)
    rate = rng.beta(2, 18, n_users) * np.where(arm == 1, 1 + lift, 1.0)
    clicks = rng.binomial(impressions, np.minimum(rate, 1.0))
    return Measurements(
        arms=("control", "treatment"),
        arm=arm,
        phase=np.zeros(n_users, dtype=np.int32),
        shares=np.array([[0.5, 0.5]]),
        totals={"impressions": impressions.astype(np.float64), "clicks": clicks.astype(np.float64)},
        days=days,
    )


def test_a_clear_win_at_the_planned_end_is_deployed() -> None:
    analysis = analyze(Design(metrics=(CTR,), planned_users=20_000), world(20_000, lift=0.2))
    assert analysis.recommendation.action == "deploy_treatment"
    assert analysis.find("ctr", "treatment").p_value_adjusted is not None


def test_there_is_a_recommendation_without_users() -> None:
    analysis = analyze(Design(metrics=(CTR,)), world(0))
    assert analysis.recommendation.action == "continue_running"


def test_an_analysis_is_json() -> None:
    said = json.loads(json.dumps(analyze(Design(metrics=(CTR,)), world(50)).as_dict(), allow_nan=False))
    assert said["recommendations"]["action"] == "continue_running"
