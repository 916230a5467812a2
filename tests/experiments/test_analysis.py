"""From users' totals to a recommendation: planned looks, replay, and input that has no answer."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from samples import PRIMARY, guardrail, measured

from rec_engine.errors import DataError
from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.results import Analysis, Look
from rec_engine.experiments.sequential import Path, bounds

CTR = Metric(name="ctr", numerator="clicks", denominator="impressions", role="primary")
CONVERSION = Metric(name="conversion", numerator="conversions", is_share=True)
REVENUE = Metric(name="revenue", numerator="revenue", cap_quantile=0.99)


def first(users: Measurements, n: int) -> Measurements:
    """Return the first n users."""
    cut = {name: column[:n] for name, column in users.totals.items()}
    return replace(users, arm=users.arm[:n], phase=users.phase[:n], totals=cut, days=7 + n)


def looked_at(design: Design, users: Measurements, sizes: list[int]) -> list[Analysis]:
    """Return the analyses at each size, looks kept from one to the next."""
    looks: list[Look] = []
    found = []
    for n in sizes:
        found.append(analyze(design, first(users, n), looks))
        looks += [look] if (look := found[-1].look) else []
    return found


def test_looking_between_planned_looks_changes_nothing() -> None:
    design = Design(metrics=(PRIMARY,), planned_users=10_000, min_sample_size=100)
    often = looked_at(design, measured(10_000), list(range(500, 10_001, 500)))
    planned = looked_at(design, measured(10_000), list(range(2_000, 10_001, 2_000)))
    assert [found.look is not None for found in often] == [i % 4 == 3 for i in range(20)]
    assert often[-1].recommendation == planned[-1].recommendation
    assert often[-1].looks_taken == 5
    assert often[-1].alpha_spent == pytest.approx(0.05)


def test_looks_have_the_bounds_of_their_fractions_and_a_missed_one_is_not_made_up_for() -> None:
    design = Design(metrics=(PRIMARY,), planned_users=10_000, min_sample_size=100)
    found = looked_at(design, measured(10_000), [2_700, 3_900, 4_500, 10_000])
    assert [each.look is not None for each in found] == [True, False, True, True]
    path = Path((0.27, 0.45, 1.0), (0.27, 0.45, 1.0))
    assert_allclose(found[-1].find("main", "treatment").bound or 0, bounds(path, 0.05)[-1], atol=2e-3)


def test_a_verdict_stands_although_later_users_would_not_give_it() -> None:
    design = Design(metrics=(PRIMARY,), planned_users=10_000, min_sample_size=100)
    won = analyze(design, measured(4_000, effects={"main": (0.1,)}))
    assert won.recommendation.action == "deploy_treatment"
    assert won.look is not None
    later = analyze(design, measured(6_000, seed=5), [won.look])
    assert later.recommendation.action == "deploy_treatment"


def test_after_the_last_look_nothing_is_spent_any_more() -> None:
    design = Design(metrics=(PRIMARY,), planned_users=2_000, min_sample_size=100)
    end = analyze(design, measured(2_000, seed=3))
    assert end.look is not None
    assert end.look.fraction == 1.0
    after = analyze(design, measured(9_000, effects={"main": (0.1,)}), [end.look])
    assert after.look is None
    assert after.recommendation.action == "no_clear_winner"


def test_an_experiment_that_ends_early_spends_the_rest() -> None:
    design = Design(metrics=(PRIMARY,), planned_users=10_000)
    ended = analyze(design, measured(4_000, seed=3), is_final=True)
    assert ended.look is not None
    assert ended.look.fraction == 1.0
    assert ended.alpha_spent == pytest.approx(0.05)
    assert ended.recommendation.action == "no_clear_winner"
    assert analyze(design, measured(30), is_final=True).recommendation.action == "no_clear_winner"


def test_an_analysis_is_replayed_from_its_stored_looks_to_the_letter() -> None:
    design = Design(metrics=(PRIMARY, guardrail(margin=0.02)), planned_users=10_000, min_sample_size=100)
    users = measured(10_000, effects={"main": (0.02,)})
    found = looked_at(design, users, [2_000, 5_000, 10_000])
    looks = [Look.model_validate_json(each.look.model_dump_json()) for each in found[:-1] if each.look]
    again = analyze(design, users_at := first(users, 10_000), looks)
    assert json.dumps(again.as_dict()) == json.dumps(found[-1].as_dict())
    assert users_at.days == again.days


def test_an_analysis_is_json_and_names_its_action() -> None:
    said = json.loads(json.dumps(analyze(Design(metrics=(PRIMARY,)), measured(50)).as_dict(), allow_nan=False))
    assert said["recommendations"]["action"] == "continue_running"
    assert said["comparisons"][0]["metric"] == "main"


def by_hand(n: int, **totals: list[float]) -> Measurements:
    """Return n users in two arms by turns."""
    return Measurements(
        arms=("control", "treatment"),
        arm=(np.arange(n) % 2).astype(np.int32),
        phase=np.zeros(n, dtype=np.int32),
        shares=np.array([[0.5, 0.5]]),
        totals={name: np.array(values, dtype=np.float64) for name, values in totals.items()},
        days=10,
    )


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_hardly_any_users_give_no_wrong_number(n: int) -> None:
    users = by_hand(n, clicks=[1.0] * n, impressions=[2.0] * n, conversions=[0.0] * n, revenue=[0.1] * n)
    found = analyze(Design(metrics=(CTR, CONVERSION, REVENUE, guardrail())), users)
    for each in found.comparisons:
        assert (each.p_value, each.ci, each.cs, each.p_value_always_valid, each.mde_now) == (None,) * 5
    assert found.recommendation.action == "continue_running"
    assert found.health


def test_an_arm_without_users_is_named() -> None:
    users = replace(by_hand(4, clicks=[1, 0, 2, 1], impressions=[3, 4, 5, 6]), arm=np.zeros(4, dtype=np.int32))
    found = analyze(Design(metrics=(CTR,)), users)
    assert found.find("ctr", "treatment").difference is None
    assert "treatment has no users." in found.health


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_total_that_is_not_finite_leaves_its_metric_out_and_no_other(value: float) -> None:
    n = 40
    users = by_hand(n, revenue=[value, *range(1, n)], clicks=[float(i % 3) for i in range(n)], impressions=[3.0] * n)
    found = analyze(Design(metrics=(CTR, REVENUE)), users)
    assert found.find("revenue", "treatment").difference is None
    assert "revenue: 1 of its totals are not finite; the metric is not computed." in found.health
    assert found.find("ctr", "treatment").p_value is not None


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_what_never_varies_is_not_tested(constant: float) -> None:
    users = by_hand(1_001, revenue=[constant] * 1_001, clicks=[constant * 3] * 1_001, impressions=[7.0] * 1_001)
    found = analyze(Design(metrics=(CTR, Metric(name="revenue", numerator="revenue"))), users)
    for each in found.comparisons:
        assert (each.p_value, each.ci, each.p_value_always_valid) == (None, None, None)
    assert sum("the same for every user" in note for note in found.health) == 2


def test_a_ratio_that_is_the_same_for_all_although_users_differ_is_not_tested() -> None:
    shown = [float(1 + i % 7) for i in range(101)]
    users = by_hand(101, clicks=[0.3 * each for each in shown], impressions=shown)
    assert analyze(Design(metrics=(CTR,)), users).find("ctr", "treatment").p_value is None


def test_nothing_below_the_line_is_no_ratio() -> None:
    users = by_hand(10, clicks=[0.0] * 10, impressions=[0.0] * 10)
    found = analyze(Design(metrics=(CTR,)), users)
    assert found.find("ctr", "treatment").control is None
    assert "ctr: impressions is 0 throughout an arm; there is no ratio to it." in found.health


def test_totals_above_the_quantile_are_cut_to_it() -> None:
    values = [float(i) for i in range(100)] + [1e9]
    found = analyze(Design(metrics=(REVENUE,)), by_hand(101, revenue=values))
    control = found.find("revenue", "treatment").control
    assert control is not None
    assert control < 60


def test_a_quantile_that_leaves_nothing_says_so() -> None:
    capped = Metric(name="revenue", numerator="revenue", cap_quantile=0.9)
    found = analyze(Design(metrics=(capped,)), by_hand(100, revenue=[0.0] * 95 + [5.0] * 5))
    assert found.find("revenue", "treatment").difference is None
    assert any("Raise cap_quantile" in note for note in found.health)


def test_a_past_narrows_the_interval_and_one_that_is_not_finite_is_not_used() -> None:
    users = measured(2_000)
    design = Design(metrics=(PRIMARY,))
    noise = np.random.default_rng(1).normal(0, 1, 2_000)
    with_past = analyze(design, replace(users, before={"main": users.totals["main"] + noise}))
    plain = analyze(design, users).find("main", "treatment")
    less = with_past.find("main", "treatment")
    assert less.variance_reduction == pytest.approx(0.8, abs=0.03)
    assert (less.se or 1) < 0.5 * (plain.se or 0)
    for past in (np.full(2_000, np.nan), users.totals["main"]):
        without = analyze(design, replace(users, before={"main": past})).find("main", "treatment")
        assert (without.se, without.variance_reduction) == (plain.se, None)


def test_several_comparisons_share_the_level_within_their_role() -> None:
    others = tuple(Metric(name=name, numerator=name) for name in ("a", "b"))
    users = measured(3_000, effects={"a": (), "b": ()}, shares=(0.4, 0.3, 0.3))
    found = analyze(Design(metrics=(PRIMARY, *others), planned_users=3_000, method="fixed", min_sample_size=100), users)
    primary = [each for each in found.comparisons if each.role == "primary"]
    smallest = min(each.p_value or 1 for each in primary)
    assert min(each.p_value_adjusted or 1 for each in primary) == pytest.approx(min(1, 2 * smallest))
    secondary = [each for each in found.comparisons if each.role == "secondary"]
    assert min(each.p_value_adjusted or 1 for each in secondary) == pytest.approx(
        min(1.0, 4 * min(each.p_value or 1 for each in secondary))
    )


def test_measurements_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(DataError, match="columns of"):
        by_hand(4, clicks=[1.0])
    with pytest.raises(DataError, match="arm is not one of"):
        replace(by_hand(4), arm=np.array([0, 1, 2, 1], dtype=np.int32))
    with pytest.raises(DataError, match="do not fit"):
        replace(by_hand(4), shares=np.array([[1.0]]))
