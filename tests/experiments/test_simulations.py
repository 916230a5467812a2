"""Simulated experiments whose truth is known: the tables of benchmarks/experiments.py, with fewer runs."""

import importlib
import math
from pathlib import Path as FilePath
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.effects import compare
from rec_engine.experiments.estimates import estimates
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.moments import Moments
from rec_engine.experiments.results import Look

BENCHMARKS = FilePath(__file__).parents[2] / "benchmarks"


@pytest.fixture
def simulations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("experiments")


def band(share: float, n_runs: int) -> tuple[float, ...]:
    """Return what 99.9% of simulations show of a share."""
    return tuple(float(stats.binom.ppf(at, n_runs, share)) / n_runs for at in (0.0005, 0.9995))


def test_equal_arms_are_called_different_as_often_as_promised_and_far_more_by_naive_tests(
    simulations: ModuleType,
) -> None:
    """The mutant with the naive variance fails here too: it rejects a sixth of equal arms at the end."""
    rows = simulations.false_alarms(500, users_an_arm=1_000)
    low, high = band(0.05, 500)
    for row in rows:
        assert low <= row["clustered t, end"] <= high, row
        assert row["5 planned looks"] <= high, row
        assert row["20 planned looks"] <= high, row
        assert row["always valid"] <= 0.05, row
        assert row["clustered t, any look"] > 0.15, row
        assert row["uniform: KS p"] > 0.001, row
    ctr = rows[0]
    assert ctr["naive z, any look"] > 0.5
    assert ctr["naive z, end"] > 0.1


def test_a_planted_effect_is_found_as_often_as_planned_and_intervals_hold_it(simulations: ModuleType) -> None:
    (row,) = simulations.power(400, metrics=("session_seconds",))
    for name in ("found", "found, 5 looks"):
        assert band(0.8, 400)[0] <= row[name] <= band(0.8, 400)[1], row
    for name in ("interval of the relative effect", "interval of the difference"):
        assert band(0.95, 400)[0] <= row[name] <= band(0.95, 400)[1], row


def test_the_past_takes_its_squared_correlation_off_the_variance(simulations: ModuleType) -> None:
    for row in simulations.variance_reduction(400):
        assert row["reported"] == pytest.approx(row["rho squared"], abs=0.01)
        assert row["over runs"] == pytest.approx(row["rho squared"], abs=0.12)
        assert row["false alarms"] <= band(0.05, 400)[1]


def test_a_lost_percent_is_seen_and_a_fair_split_left_alone(simulations: ModuleType) -> None:
    fair, percent, twentieth = simulations.sample_ratio(500)
    assert fair["either"] <= band(0.01, 500)[1]
    assert percent["either"] >= 0.9
    assert twentieth["either"] >= 0.9
    assert fair["chi-square at .05"] > 0.2


def test_a_ramp_deceives_who_pools_and_who_weighs_by_what_he_saw(simulations: ModuleType) -> None:
    pooled, own, ours = simulations.phases(1_000)
    assert pooled["false alarms"] > 0.9
    assert own["mean z"] < -0.1
    assert abs(ours["mean z"]) < 0.1
    assert ours["false alarms"] <= band(0.05, 1_000)[1]


def test_interleaving_needs_a_tenth_of_the_users(simulations: ModuleType) -> None:
    (close,) = simulations.interleaving(3_000, pairs=("close",))
    assert close["fewer by"] >= 10


def test_a_bandit_saves_regret_and_its_interval_holds(simulations: ModuleType) -> None:
    for row in simulations.bandits(60):
        assert row["interval covers"] >= band(0.95, 60)[0]
    assert row["regret of equal shares"] < 0.5


def test_quantiles_of_users_who_differ_have_intervals_that_hold_and_naive_ones_do_not(simulations: ModuleType) -> None:
    for row in simulations.quantiles(150, users_an_arm=1_000):
        assert row["interval covers"] >= band(0.95, 150)[0], row
        for name in ("false alarms", "5 planned looks", "always valid, 5 looks"):
            assert row[name] <= band(0.05, 150)[1], row
        assert row["values for users"] > band(0.05, 150)[1], row


def test_simulations_compute_what_an_analysis_computes(simulations: ModuleType) -> None:
    """Every look's z of the vectorised tables is the one that `analyze` stores."""
    worlds = importlib.import_module("experiment_worlds")
    design = Design(
        metrics=(Metric(name="ctr", numerator="clicks", denominator="impressions", role="primary"),),
        planned_users=1_000,
        min_sample_size=50,
    )
    columns = worlds.clicks(np.random.default_rng(0), (1, 5, 2, 100), np.ones((2, 1)))
    of = Moments(*worlds._cumulated(columns))
    expected = compare(estimates(of), 1).z()[0]
    looks: list[Look] = []
    for at in range(1, 6):
        clicks, impressions = (column[0, :at].ravel() for column in columns)
        arm = np.tile(np.repeat([0, 1], 100), at).astype(np.int32)
        found = analyze(
            design,
            Measurements(
                ("control", "treatment"),
                arm,
                np.zeros(len(arm), dtype=np.int32),
                np.array([[0.5, 0.5]]),
                {"clicks": clicks, "impressions": impressions},
                days=at * 7,
            ),
            looks,
        )
        assert found.look is not None
        looks.append(found.look)
    stored = [look.statistics[0].z or math.nan for look in looks]
    assert_allclose(stored, expected, rtol=1e-9)
