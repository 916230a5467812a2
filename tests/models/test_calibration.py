"""From raw scores to probabilities."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit

from rec_engine.models.calibration import LOG_SLOPE, calibrated

RNG = np.random.default_rng(0)
RAW = RNG.standard_normal(20_000)
NOTHING = np.zeros(len(RAW), dtype=np.float32)


def drawn(log_odds: np.ndarray) -> np.ndarray:
    return (RNG.random(len(log_odds)) < expit(log_odds)).astype(np.float32)


def test_it_is_a_logistic_regression() -> None:
    labels = drawn(0.7 * RAW - 1.5)
    slope, intercept = calibrated(RAW, labels, NOTHING)
    oracle = sm.Logit(labels, sm.add_constant(RAW)).fit(disp=False).params
    assert [intercept, slope] == pytest.approx(oracle.tolist(), abs=0.01)


def test_what_positions_add_does_not_flatten_the_slope() -> None:
    added = (-0.8 * RAW + RNG.standard_normal(len(RAW))).astype(np.float32)  # the better, the lower it stood
    labels = drawn(RAW - 1 + added)
    assert calibrated(RAW, labels, NOTHING)[0] < 0.5
    slope, intercept = calibrated(RAW, labels, added)
    assert slope == pytest.approx(1, abs=0.06)
    assert intercept == pytest.approx(-1 + added.mean(), abs=0.06)


def test_flawless_scores_are_not_certain_and_idle_ones_do_not_turn() -> None:
    assert calibrated(RAW, (RAW > 0).astype(np.float32), NOTHING)[0] == pytest.approx(np.exp(LOG_SLOPE))
    assert calibrated(RAW, drawn(-RAW), NOTHING)[0] == pytest.approx(np.exp(-LOG_SLOPE), rel=0.01)
