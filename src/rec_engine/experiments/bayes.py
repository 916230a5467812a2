"""A Bayesian reading beside the tests: how likely each arm is the best, and what taking it may cost.

Priors are flat, so this is another way to read the same data and no cure for looking too often.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

from rec_engine.experiments.moments import DoubleArray

KNOTS = np.array([-9.0, -5.0, -3.0, -1.5, 0.0, 1.5, 3.0, 5.0, 9.0, 14.0])
"""Where the range of integration is cut, in standard deviations of each arm, so that every arm's rise is followed."""
NODES_A_PIECE = 24


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is believed of independent arms.

    Attributes:
        prob_best: (n_arms,) probability that the arm's figure is the highest.
        expected_loss: (n_arms,) mean of the highest figure less the arm's.
    """

    prob_best: DoubleArray
    expected_loss: DoubleArray


def normal_posterior(mean: DoubleArray, variance: DoubleArray) -> Posterior:
    """Return the posterior of (n_arms,) figures that are normal around their estimates; variances above 0."""
    deviation = np.sqrt(variance)
    x, weights = _nodes(mean, deviation, -np.inf, np.inf)
    scaled = (x - mean[:, None]) / deviation[:, None]
    density = np.exp(-(scaled**2) / 2) / (deviation[:, None] * np.sqrt(2 * np.pi))
    return _integrate(x, weights * density, special.ndtr(scaled))


def beta_posterior(successes: DoubleArray, trials: DoubleArray) -> Posterior:
    """Return the posterior of (n_arms,) shares under a uniform prior."""
    a, b = 1 + successes[:, None], 1 + (trials - successes)[:, None]
    mean = (a / (a + b))[:, 0]
    deviation = np.sqrt(mean * (1 - mean) / (2 + trials + 1))
    x, weights = _nodes(mean, deviation, 0.0, 1.0)
    return _integrate(x, weights * stats.beta.pdf(x, a, b), np.asarray(special.betainc(a, b, x), dtype=np.float64))


def _nodes(mean: DoubleArray, deviation: DoubleArray, low: float, high: float) -> tuple[DoubleArray, DoubleArray]:
    """Return (n_nodes,) nodes and weights of Gauss and Legendre, piece by piece between all arms' knots."""
    ends = np.clip(np.unique(mean[:, None] + KNOTS * deviation[:, None]), low, high)
    unit, width = _legendre()
    half = np.diff(ends)[:, None] / 2
    return (ends[:-1, None] + (unit + 1) * half).ravel(), (width * half).ravel()


def _integrate(x: DoubleArray, mass: DoubleArray, below: DoubleArray) -> Posterior:
    """Integrate over the figure of each arm.

    Args:
        x: (n_nodes,) values of the figure.
        mass: (n_arms, n_nodes) density times weight.
        below: (n_arms, n_nodes) probability that an arm's figure is below.
    """
    is_highest = np.stack([mass[arm] * np.delete(below, arm, axis=0).prod(axis=0) for arm in range(len(mass))])
    highest = float((is_highest * x).sum())
    return Posterior(np.clip(is_highest.sum(axis=1), 0.0, 1.0), np.maximum(highest - (mass * x).sum(axis=1), 0.0))


@lru_cache(maxsize=1)
def _legendre() -> tuple[DoubleArray, DoubleArray]:
    nodes, weights = special.roots_legendre(NODES_A_PIECE)
    return nodes, weights
