"""Holm beside a reference and statsmodels."""

import numpy as np
from numpy.testing import assert_allclose
from statsmodels.stats.multitest import multipletests

from rec_engine.experiments.multiplicity import holm


def test_the_reference_is_met() -> None:
    p_values = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    found = [each or 0.0 for each in holm(p_values)]
    assert_allclose(found, [0.01, 0.072] + [0.312] * 5 + [0.615] * 3, rtol=1e-12)


def test_it_is_what_statsmodels_says() -> None:
    p_values = np.random.default_rng(0).beta(0.3, 3, 12)
    found = [each or 0.0 for each in holm(p_values.tolist())]
    assert_allclose(found, multipletests(p_values, method="holm")[1], rtol=1e-12)


def test_a_missing_p_value_stays_missing_and_counts() -> None:
    assert holm([0.01, None, 0.02]) == [0.03, None, 0.04]
    assert holm([]) == []
