"""Intervals and p-values that hold whenever they are looked at, and however often."""

import math

import numpy as np

from rec_engine.experiments.moments import DoubleArray


def multiplier(fraction: DoubleArray | float, level: float) -> DoubleArray:
    """Return how many standard errors to either side the confidence sequence reaches.

    The mixture of Robbins, for estimates that are normal in large samples: the error stays inside at all times together
    with probability 1 - level. At the planned size it is about as narrow as such a sequence can be, some 1.5 times as
    wide there as an interval that may be looked at once.

    Args:
        fraction: (...,) information at hand of the planned, above 0; may exceed 1.
        level: probability of ever missing, two-sided.

    References:
        Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and asymptotic confidence
        sequences, 2024, theorem 2.2 and appendix B.2.
    """
    mixture = _mixture(fraction, level)
    return np.asarray(np.sqrt(2 * (mixture + 1) / mixture * np.log(np.sqrt(mixture + 1) / level)))


def always_valid_p_value(z: DoubleArray | float, fraction: DoubleArray | float, level: float) -> DoubleArray:
    """Return the level at which a sequence tuned as the one of `level` would just exclude no difference.

    Below `level` exactly when that one excludes it.
    """
    mixture = _mixture(fraction, level)
    exponent = -np.square(z) * mixture / (2 * (mixture + 1))
    return np.asarray(np.minimum(np.sqrt(mixture + 1) * np.exp(exponent), 1.0))


def _mixture(fraction: DoubleArray | float, level: float) -> DoubleArray:
    """Return the mixture's variance in units of information, tuned to be narrow at fraction 1."""
    log = -2 * math.log(level)
    return np.asarray(np.asarray(fraction) * (log + math.log(log + 1)), dtype=np.float64)
