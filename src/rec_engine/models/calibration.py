"""From a model's raw scores to probabilities: a line in log-odds, fitted where the model did not learn.

References:
    Platt, Probabilistic outputs for support vector machines, 1999.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rec_engine.data.dataset import FloatArray

LOG_SLOPE = 2.5
"""The logarithm of a slope is within this of 0."""


def calibrated(raw: NDArray[np.float64], labels: FloatArray, added: FloatArray) -> tuple[float, float]:
    """Return slope and intercept with the highest likelihood of the labels, these smoothed as Platt does.

    Without that, trees that tell the labels apart without a fault would be certain of everything. What the positions
    add, (n,) in log-odds, stands beside: where a good item was shown low, its clicks say less of it than they seem to,
    and the slope would come out flat. The intercept is that of a mean position.

    Args:
        raw: (n,) float64 scores, higher is better.
        labels: (n,) float32, 1 for taken.
        added: (n,) float32 log-odds; zeros where nothing was shown.
    """
    from scipy.optimize import minimize  # here, for it takes a fifth of a second, and to answer nobody needs it

    n_taken = labels.sum()
    labels = np.where(labels > 0, (n_taken + 1) / (n_taken + 2), 1 / (len(labels) - n_taken + 2)).astype(np.float32)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope = np.exp(parameters[0])
        odds = slope * raw + parameters[1] + added
        wrong = (expit(odds) - labels) / len(raw)
        value = float((np.logaddexp(0, odds) - labels * odds).mean())
        return value, np.array([float(wrong @ raw) * slope, float(wrong.sum())])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-LOG_SLOPE, LOG_SLOPE), (None, None)])
    return float(np.exp(found.x[0])), float(found.x[1] + added.mean())
