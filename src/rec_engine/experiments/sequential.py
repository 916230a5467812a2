"""Planned looks at growing data: bounds that together cost one significance level (group-sequential tests).

Convention: tests are two-sided, made of two one-sided ones. Each side spends its half of the level by the spending
function, and what is spent counts paths that have crossed neither side before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import optimize, special

from rec_engine.experiments.moments import DoubleArray

Spending = Literal["obrien_fleming", "pocock"]

MIN_SPENT = 1e-13
"""Less than this cannot be told from nothing: the bound is infinite then."""
WIDEST = 8.3
"""Standard deviations that are followed; beyond them lies less than 1e-16."""
NODES_A_STEP = 6.0
"""Nodes of integration for each standard deviation of the step between two looks."""
MIN_NODES, MAX_NODES = 48, 1_200


@dataclass(frozen=True, slots=True)
class Path:
    """Looks so far: how much of the level may be spent by each, and how much was known.

    Attributes:
        fractions: of the planned users, ascending, at most 1; what spending follows.
        information: above 0, ascending, in any unit; what the statistics' correlation follows.
    """

    fractions: tuple[float, ...]
    information: tuple[float, ...]

    @classmethod
    def equal(cls, n_looks: int) -> "Path":
        """Return the path of so many equally spaced looks."""
        steps = tuple((i + 1) / n_looks for i in range(n_looks))
        return cls(steps, steps)


def spent(fraction: DoubleArray | float, level: float, spending: Spending = "obrien_fleming") -> DoubleArray:
    """Return the part of a one-sided level that may be used up by a fraction of the planned information.

    "obrien_fleming" spends next to nothing early, "pocock" nearly evenly.

    References:
        Lan and DeMets, Discrete sequential boundaries for clinical trials, 1983.
    """
    t = np.clip(fraction, 1e-12, 1.0)
    if spending == "pocock":
        return np.asarray(level * np.log1p((math.e - 1) * t))
    return np.asarray(2 * special.ndtr(special.ndtri(level / 2) / np.sqrt(t)))


@lru_cache(maxsize=1024)
def bounds(path: Path, level: float, spending: Spending = "obrien_fleming") -> tuple[float, ...]:
    """Return the z that each look must cross, on either side; infinite where a look has nothing to spend.

    The density of paths that have crossed nothing is carried from look to look by numerical integration. It is
    symmetric, so half of it does.

    Args:
        path: of the looks.
        level: two-sided.
        spending: how the level is spread over the looks.

    References:
        Armitage, McPherson and Rowe, Repeated significance tests on accumulating data, 1969; Jennison and Turnbull,
        Group sequential methods with applications to clinical trials, 2000, chapter 19.
    """
    return _integrate(path.information, _increments(path, level, spending))[0]


def p_value(path: Path, z: Sequence[float | None], spending: Spending = "obrien_fleming") -> float:
    """Return the smallest two-sided level at which any of the looks would have crossed its bound.

    Below a level exactly when the test at that level has rejected by now; so Holm's procedure on it is the
    group-sequential one. A look without a statistic cannot have crossed.

    References:
        Liu and Anderson, On adaptive extensions of group sequential trials, JASA 2008; Maurer and Bretz, Multiple
        testing in group sequential trials using graphical approaches, 2013.
    """
    if len(z) == 1 and path.fractions[0] >= 1 and z[0] is not None:
        return float(2 * special.ndtr(-abs(z[0])))
    heights = np.array([0.0 if each is None else abs(each) for each in z])

    def margin(log_level: float) -> float:
        return float(np.max(heights - np.minimum(bounds(path, math.exp(log_level), spending), 1e3)))

    low, high = math.log(1e-12), math.log(0.9999)
    if margin(high) <= 0:
        return 1.0
    if margin(low) >= 0:
        return math.exp(low)
    return math.exp(optimize.brentq(margin, low, high, xtol=1e-4))


def inflation(n_looks: int, level: float, power: float, spending: Spending = "obrien_fleming") -> float:
    """Return by how much more users a test with equally spaced looks needs at most than one with a single look.

    References:
        Jennison and Turnbull 2000, section 7.2.
    """
    path = Path.equal(n_looks)
    _, nodes, density = _integrate(path.information, _increments(path, level, spending))
    single = float(special.ndtri(power) - special.ndtri(level / 2))

    def missed(drift: float) -> float:
        both = np.exp(drift * nodes - drift**2 / 2) + np.exp(-drift * nodes - drift**2 / 2)
        return float((density * both).sum()) - (1 - power)

    return max(1.0, float(optimize.brentq(missed, 0.5 * single, 2 * single, xtol=1e-10) / single) ** 2)


def _increments(path: Path, level: float, spending: Spending) -> DoubleArray:
    """Return (n_looks,) what each look may spend on one side."""
    return np.diff(spent(np.array(path.fractions), level / 2, spending), prepend=0.0)


def _integrate(
    at_looks: tuple[float, ...], increments: DoubleArray
) -> tuple[tuple[float, ...], DoubleArray, DoubleArray]:
    """Return the bounds, and nodes (n,) above 0 of the last look's sums with the weight that each has on one side."""
    information = np.array(at_looks)
    variances = np.diff(information, prepend=0.0)
    nodes, weights = np.zeros(1), np.full(1, 0.5)
    found: list[float] = []
    for at, step, increment in zip(information, np.maximum(variances, 1e-9 * information), increments, strict=True):
        deviation = math.sqrt(step)
        end = _bound(nodes, weights, deviation, increment, math.sqrt(at) * WIDEST)
        found.append(end / math.sqrt(at))
        nodes, weights = _next(nodes, weights, deviation, min(end, math.sqrt(at) * WIDEST))
    return tuple(found), nodes / math.sqrt(information[-1]), weights


def _bound(nodes: DoubleArray, weights: DoubleArray, deviation: float, increment: float, widest: float) -> float:
    """Return the sum beyond which, on one side, paths have just the probability `increment`."""
    if increment < MIN_SPENT:
        return math.inf

    def excess(end: float) -> float:
        tail = special.ndtr((nodes - end) / deviation) + special.ndtr((-nodes - end) / deviation)
        return float((weights * tail).sum()) - increment

    if excess(widest) > 0 or excess(0.0) < 0:
        return math.inf if excess(widest) > 0 else 0.0
    return float(optimize.brentq(excess, 0.0, widest, xtol=1e-12 * widest))


def _next(nodes: DoubleArray, weights: DoubleArray, deviation: float, end: float) -> tuple[DoubleArray, DoubleArray]:
    """Return nodes in (0, end) and the weight of paths that arrive there, from both sides."""
    n = int(np.clip(NODES_A_STEP * end / deviation, MIN_NODES, MAX_NODES))
    unit, width = _legendre(n)
    after = (unit + 1) * end / 2
    near = (after[:, None] - nodes) / deviation
    far = (after[:, None] + nodes) / deviation
    density = np.exp(-(near**2) / 2) + np.exp(-(far**2) / 2)
    return after, width * end / 2 / (deviation * math.sqrt(2 * math.pi)) * (density @ weights)


@lru_cache(maxsize=256)
def _legendre(n: int) -> tuple[DoubleArray, DoubleArray]:
    nodes, weights = special.roots_legendre(n)
    return nodes, weights
