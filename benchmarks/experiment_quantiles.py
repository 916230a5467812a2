"""The table of quantiles in `experiments.py`: latencies of users who differ, with a difference that is known."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rec_engine.experiments.confidence_sequence import always_valid_p_value
from rec_engine.experiments.effects import Effect, compare
from rec_engine.experiments.measurements import SingleValues
from rec_engine.experiments.quantiles import quantile_estimates
from rec_engine.experiments.sequential import Path, bounds

LEVEL, LOOKS = 0.05, 5
BETWEEN_USERS, WITHIN_USERS = 0.7, 0.7
"""Deviations of the logarithm of a latency: half of how latencies vary is who waits."""
CENTER = 4.0
"""Mean of that logarithm: some 55 milliseconds."""
EFFECT = 0.1


def quantiles(n_runs: int, *, users_an_arm: int = 2_000, seed: int = 8) -> list[dict[str, float | str]]:
    """Return, for the median and the 99th percentile, how often equal arms are called different, and coverage.

    Latencies are lognormal and in whole milliseconds or not; users have lognormal numbers of them, some seven.
    """
    rows: list[dict[str, float | str]] = []
    for probability in (0.5, 0.99):
        for is_whole in (False, True):
            rng = np.random.default_rng(seed)
            runs = [_run(rng, users_an_arm, probability, is_whole=is_whole) for _ in range(n_runs)]
            shares = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
            kind = "whole" if is_whole else "exact"
            rows.append({"quantile": f"{probability:g}, {kind}"} | shares)
    return rows


def _run(rng: np.random.Generator, users_an_arm: int, probability: float, *, is_whole: bool) -> dict[str, bool]:
    values, arm = _latencies(rng, users_an_arm)
    shifted = SingleValues(values.user, values.value * (1 + EFFECT * arm[values.user]))
    if is_whole:
        values, shifted = (SingleValues(each.user, np.floor(each.value)) for each in (values, shifted))
    of_values = arm[values.user]
    each_a_user = SingleValues(np.arange(len(of_values), dtype=np.int32), values.value)
    spread = math.hypot(BETWEEN_USERS, WITHIN_USERS)
    truth = EFFECT * math.exp(CENTER + spread * float(special.ndtri(probability)))
    low, high = _effect(shifted, arm, probability).interval(-special.ndtri(LEVEL / 2))
    at_looks = [_effect(*_first(values, arm, look / LOOKS), probability) for look in range(1, LOOKS + 1)]
    z = np.array([float(each.z()) for each in at_looks])
    lasting = always_valid_p_value(z, np.arange(1, LOOKS + 1) / LOOKS, LEVEL)
    return {
        "interval covers": bool(low <= truth <= high),
        "false alarms": bool(at_looks[-1].p_value() < LEVEL),
        "values for users": bool(_effect(each_a_user, of_values, probability).p_value() < LEVEL),
        "5 planned looks": bool((np.abs(z) > bounds(Path.equal(LOOKS), LEVEL)).any()),
        "always valid, 5 looks": bool((lasting < LEVEL).any()),
    }


def _latencies(rng: np.random.Generator, users_an_arm: int) -> tuple[SingleValues, NDArray[np.int64]]:
    """Return the values of users in the order in which they come, and their arms."""
    n_users = 2 * users_an_arm
    counts = np.ceil(rng.lognormal(1.5, 0.8, n_users)).astype(np.int64)
    user = np.repeat(np.arange(n_users, dtype=np.int32), counts)
    slow = rng.normal(CENTER, BETWEEN_USERS, n_users)
    return SingleValues(user, np.exp(rng.normal(slow[user], WITHIN_USERS))), rng.integers(0, 2, n_users)


def _first(values: SingleValues, arm: NDArray[np.int64], share: float) -> tuple[SingleValues, NDArray[np.int64]]:
    n_users = round(share * len(arm))
    until = int(np.searchsorted(values.user, n_users))
    return SingleValues(values.user[:until], values.value[:until]), arm[:n_users]


def _effect(values: SingleValues, arm: NDArray[np.int64], probability: float) -> Effect:
    of = quantile_estimates(values, arm, (1, 2), probability)
    return compare(of, 1)
