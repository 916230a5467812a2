"""Small experiments for tests: normal figures with known effects."""

from collections.abc import Mapping

import numpy as np

from rec_engine.experiments.design import Metric
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.moments import DoubleArray

PRIMARY = Metric(name="main", numerator="main", role="primary")


def guardrail(name: str = "guard", margin: float = 0.0) -> Metric:
    """Return a guardrail on a total of the same name."""
    return Metric(name=name, numerator=name, role="guardrail", margin=margin)


def measured(
    n_users: int,
    *,
    effects: Mapping[str, tuple[float, ...]] | None = None,
    shares: tuple[float, ...] = (0.5, 0.5),
    allotted: tuple[float, ...] | None = None,
    seed: int = 0,
    days: int = 14,
) -> Measurements:
    """Return users whose totals are normal around 10, with deviation 2.

    Args:
        n_users: in all arms.
        effects: of totals, relative, of each arm but the control; those of "main" and "guard" are 0 if not given.
        shares: true ones, of the arms.
        allotted: what the experiment believes they are; the same if not given.
        seed: of the draw.
        days: since the start.
    """
    rng = np.random.default_rng(seed)
    arm = rng.choice(len(shares), n_users, p=shares).astype(np.int32)
    totals: dict[str, DoubleArray] = {}
    for name, relative in ({"main": (), "guard": ()} | dict(effects or {})).items():
        factor = np.ones(len(shares))
        factor[1 : 1 + len(relative)] += relative
        totals[name] = rng.normal(10, 2, n_users) * factor[arm]
    others = ("treatment",) if len(shares) == 2 else tuple(f"arm {i}" for i in range(1, len(shares)))
    return Measurements(
        arms=("control", *others),
        arm=arm,
        phase=np.zeros(n_users, dtype=np.int32),
        shares=np.array([allotted or shares]),
        totals=totals,
        days=days,
    )
