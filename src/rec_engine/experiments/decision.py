"""From evidence to an action: the rows of a table, of which the first that applies is taken.

1. The sample ratio is off, or many users met two arms: investigate_further.
2. A guardrail is harmed in every treatment: keep_control.
3. A primary metric won and all guardrails hold: deploy_treatment.
4. Primary metrics lost in every treatment: keep_control.
5. One won, but a guardrail is unsettled or another primary metric lost: investigate_further.
6. Users or days are missing: continue_running; no_clear_winner where it was stopped, so that no more come.
7. Complete, and all that is not excluded is smaller than the smallest effect worth finding: no_clear_winner.
8. Complete: no_clear_winner, for want of users.

Rows 1 and 2 apply at any time, rows 3 to 5 only by the rule that the design declared.
"""

from dataclasses import dataclass

from rec_engine.experiments.design import Design
from rec_engine.experiments.results import Comparison, Recommendation, SampleRatio
from rec_engine.experiments.verdicts import ArmVerdict
from rec_engine.experiments.wording import effect_of, listed, per_cent, probability

MAX_CONFLICTING = 0.01
"""Share of users who met two arms above which assignment is not to be trusted."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the decision reads.

    Attributes:
        design: of the experiment.
        srm: sample ratio.
        n_users: measured.
        n_conflicting: left out because they met two arms.
        planned_users: at which the experiment is complete.
        verdicts: of the treatments.
        comparisons: adjusted, all of them.
        is_complete: whether the last planned look was taken, or no more users come.
        is_stopped: whether somebody has ended it.
        missing: what there is too little of yet, a phrase each.
        days_left: until it is complete at the present pace; None if unknown.
    """

    design: Design
    srm: SampleRatio
    n_users: int
    n_conflicting: int
    planned_users: int
    verdicts: tuple[ArmVerdict, ...]
    comparisons: tuple[Comparison, ...]
    is_complete: bool
    is_stopped: bool
    missing: tuple[str, ...]
    days_left: int | None


def recommend(of: Situation) -> Recommendation:
    """Return what to do, always."""
    rows = (_untrusted, _harmed, _won, _lost, _unsettled, _too_early, _equivalent)
    return next((found for row in rows if (found := row(of)) is not None), _undecided(of))


def _untrusted(of: Situation) -> Recommendation | None:
    if of.srm.status == "failed":
        p_values = [p for p in (of.srm.sequential_p_value, of.srm.p_value) if p is not None]
        return Recommendation(
            "investigate_further",
            None,
            1 - min(p_values),
            f"The arms do not have the shares of users they were given (sample ratio, {probability(min(p_values))}), "
            "so that no effect can be trusted.",
            "Find where users of one arm are lost or added (assignment, logging, bots), mend it and start anew.",
        )
    met = of.n_users + of.n_conflicting
    if of.n_conflicting > MAX_CONFLICTING * met:
        return Recommendation(
            "investigate_further",
            None,
            None,
            f"{of.n_conflicting:,} of {met:,} users met two arms, more than {per_cent(MAX_CONFLICTING)}, so that no "
            "effect can be trusted.",
            "Find out why assignment is not sticky (user ids that change, arms forced by hand) and start anew.",
        )
    return None


def _harmed(of: Situation) -> Recommendation | None:
    if not of.verdicts or not all(verdict.harmed for verdict in of.verdicts):
        return None
    worst = of.verdicts[0].harmed[0]
    margin = next(metric.margin for metric in of.design.metrics if metric.name == worst.metric)
    allowed = f"worse by more than the {per_cent(margin)} allowed" if margin else "worse"
    return Recommendation(
        "keep_control",
        None,
        _confidence(worst.p_value_always_valid),
        f"Guardrail {effect_of(worst)}: {allowed}, by an interval that holds at any time.",
        "Stop the experiment; the treatment harms what it must not.",
        tuple(effect_of(each) for verdict in of.verdicts for each in verdict.harmed),
    )


def _won(of: Situation) -> Recommendation | None:
    winners = [verdict for verdict in of.verdicts if verdict.is_winner]
    if not winners:
        return None
    best = max(winners, key=lambda verdict: abs(verdict.up[0].difference or 0.0))
    return Recommendation(
        "deploy_treatment",
        best.arm,
        _confidence(best.up[0].p_value_adjusted),
        f"{effect_of(best.up[0])}: better than the control ({_rule(of, best.up[0])}), and no guardrail is in the way.",
        f"Give {best.arm} to everybody, and watch the guardrails while doing so.",
        tuple(effect_of(each) for each in of.comparisons if each.arm == best.arm),
    )


def _lost(of: Situation) -> Recommendation | None:
    if not of.verdicts or not all(verdict.is_out for verdict in of.verdicts):
        return None
    worst = next(each for verdict in of.verdicts for each in verdict.down)
    return Recommendation(
        "keep_control",
        None,
        _confidence(worst.p_value_adjusted),
        f"{effect_of(worst)}: worse than the control ({_rule(of, worst)}).",
        "Stop the experiment and keep the control.",
        tuple(effect_of(each) for verdict in of.verdicts for each in verdict.down + verdict.harmed),
    )


def _unsettled(of: Situation) -> Recommendation | None:
    mixed = next((verdict for verdict in of.verdicts if verdict.up), None)
    if mixed is None:
        return None
    against = mixed.down + mixed.harmed + mixed.unsettled
    kind = "is worse" if mixed.down or mixed.harmed else "is not yet shown to stay within its margin"
    return Recommendation(
        "investigate_further",
        None,
        None,
        f"{effect_of(mixed.up[0])}: better than the control, but {listed([each.metric for each in against])} {kind}.",
        "Weigh the one against the other; where a guardrail is unsettled, let it run on until it is settled.",
        tuple(effect_of(each) for each in against),
    )


def _too_early(of: Situation) -> Recommendation | None:
    if of.is_complete:
        return None
    if of.is_stopped:
        return _cut_short(of)
    left = "" if of.days_left is None else f" At the present pace that takes {of.days_left} more days."
    return Recommendation(
        "continue_running",
        None,
        None,
        f"{of.n_users:,} of the {of.planned_users:,} planned users are measured, and nothing is decided "
        f"yet{_shortage(of)}.",
        f"Let it run until the plan is complete.{left}",
        tuple(effect_of(each) for each in _primary(of)),
    )


def _cut_short(of: Situation) -> Recommendation:
    return Recommendation(
        "no_clear_winner",
        None,
        None,
        f"It was stopped when {of.n_users:,} of the {of.planned_users:,} planned users were measured, before anything "
        f"was decided{_shortage(of)}.",
        "Keep the control, or plan another experiment and let it run to its end.",
        tuple(effect_of(each) for each in _primary(of)),
    )


def _shortage(of: Situation) -> str:
    return f": {listed(list(of.missing))}" if of.missing else ""


def _equivalent(of: Situation) -> Recommendation | None:
    smallest, primary = of.design.minimum_effect, _primary(of)
    if smallest is None or not primary or not all(_is_within(each, smallest) for each in primary):
        return None
    return Recommendation(
        "no_clear_winner",
        None,
        None,
        f"{effect_of(primary[0])}: any effect is smaller than the {per_cent(smallest)} worth finding.",
        "Keep the control unless the treatment has other merits, such as costing less.",
        tuple(effect_of(each) for each in primary),
    )


def _undecided(of: Situation) -> Recommendation:
    primary = _primary(of)
    if not primary:
        return Recommendation("no_clear_winner", None, None, "Nothing is compared.", "Add an arm, or a primary metric.")
    first = primary[0]
    found = "" if first.mde_now is None else f" So many users find effects from about {per_cent(first.mde_now)} on."
    return Recommendation(
        "no_clear_winner",
        None,
        None,
        f"{effect_of(first)}: the experiment is complete and its difference can be chance.{found}",
        "Keep the control, or plan a longer experiment for the effect that is worth finding.",
        tuple(effect_of(each) for each in primary),
    )


def _primary(of: Situation) -> list[Comparison]:
    return [each for each in of.comparisons if each.role == "primary"]


def _is_within(comparison: Comparison, smallest: float) -> bool:
    interval = comparison.relative_ci
    if interval is None or interval[0] is None or interval[1] is None:
        return False
    return -smallest < interval[0] and interval[1] < smallest


def _confidence(p_value: float | None) -> float | None:
    return None if p_value is None else 1 - p_value


def _rule(of: Situation, decided: Comparison) -> str:
    """Return by which rule, with its p-value."""
    rule = {
        "group_sequential": "over the planned looks",
        "always_valid": "at any time",
        "fixed": "at the planned end",
        "bayesian": "at the planned end, where the probability of being better decides",
    }[of.design.method]
    p_value = decided.p_value_adjusted
    return rule if p_value is None else f"{probability(p_value)} {rule}"
