"""Whether the arms have as many users as they were allotted: if not, users get lost, and no figure can be trusted."""

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from rec_engine.experiments.moments import DoubleArray
from rec_engine.experiments.results import SampleRatio

CONCENTRATION = 10_000.0
"""How near to the allotted shares the alternative expects the true ones: faults are a percent or so, not a half."""
SEQUENTIAL_ALARM = 0.01
CHI_SQUARE_ALARM = 0.0005
"""So low because it is looked at again and again: at 20 looks it raises 0.4% false alarms."""
MIN_EXPECTED = 5.0
"""Users expected in every arm below which a phase is left out of the chi-square test."""


def sample_ratio(n: DoubleArray, shares: DoubleArray) -> SampleRatio:
    """Return both tests of (n_phases, n_arms) users against the shares that each phase allotted."""
    if not n.sum():
        return SampleRatio(None, None, None, "unknown")
    p_value = chi_square_p_value(n, shares)
    odds = float(log_odds(n, shares))
    sequential = float(np.exp(-max(odds, 0.0)))
    failed = sequential < SEQUENTIAL_ALARM or (p_value is not None and p_value < CHI_SQUARE_ALARM)
    return SampleRatio(p_value, sequential, odds if np.isfinite(odds) else None, "failed" if failed else "ok")


def chi_square_p_value(n: DoubleArray, shares: DoubleArray) -> float | None:
    """Return the p-value of Pearson's chi-square, phases summed; None if no phase has users enough.

    Phases are summed and not pooled: an arm that has too many users in one and too few in the next is no less wrong.
    A user in an arm whose share was 0 makes it 0.
    """
    if (n[shares == 0] > 0).any():
        return 0.0
    expected = n.sum(axis=1, keepdims=True) * shares
    enough = (np.where(shares > 0, expected, np.inf) >= MIN_EXPECTED).all(axis=1, keepdims=True)
    cells = (shares > 0) & enough
    freedom = int(cells.sum() - enough.sum())
    if freedom == 0:
        return None
    return float(stats.chi2.sf(((n - expected)[cells] ** 2 / expected[cells]).sum(), freedom))


def log_odds(n: DoubleArray, shares: DoubleArray, *, concentration: float = CONCENTRATION) -> NDArray[np.float64]:
    """Return (...,) log odds of Dirichlet-multinomial shares around the allotted ones, against exactly those.

    Under the allotted shares its exponential is a martingale with mean 1, so that it exceeds 1/a with probability a at
    most, however often it is looked at. That of phases adds up.

    Args:
        n: (..., n_phases, n_arms) users.
        shares: (n_phases, n_arms); arms with share 0 and no users are left out, with users the odds are infinite.
        concentration: of the Dirichlet distribution.

    References:
        Lindon and Malek, Anytime-valid inference for multinomial count data, NeurIPS 2022, section 3.
    """
    prior = np.where(shares > 0, concentration * shares, 1.0)
    arms = special.gammaln(prior + n) - special.gammaln(prior) - n * np.log(np.where(shares > 0, shares, 1.0))
    total = n.sum(axis=-1)
    phases = special.gammaln(concentration) - special.gammaln(concentration + total)
    impossible = ((shares == 0) & (n > 0)).any(axis=(-2, -1))
    odds = np.where(shares > 0, arms, 0.0).sum(axis=(-2, -1)) + phases.sum(axis=-1)
    return np.asarray(np.where(impossible, np.inf, odds))
