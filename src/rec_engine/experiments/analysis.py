"""The analysis of an experiment on one page: estimate, look if a look is due, compare, check the arms, recommend."""

from collections.abc import Sequence
from dataclasses import replace

from rec_engine.experiments.comparisons import Tested, arm_figures, comparison, posterior_of, tested
from rec_engine.experiments.decision import Situation, recommend
from rec_engine.experiments.design import Design
from rec_engine.experiments.health import health
from rec_engine.experiments.looks import Standing, alpha_spent, is_due, standing
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.metric_figures import MetricFigures, metric_figures
from rec_engine.experiments.multiplicity import holm
from rec_engine.experiments.progress import Progress, is_complete, progress_of
from rec_engine.experiments.results import Analysis, Comparison, Look
from rec_engine.experiments.sample_ratio import sample_ratio
from rec_engine.experiments.segments import segment_effects
from rec_engine.experiments.verdicts import ArmVerdict, arm_verdict, deciding_p_value


def analyze(
    design: Design,
    measured: Measurements,
    past_looks: Sequence[Look] = (),
    *,
    is_final: bool = False,
    may_look: bool = True,
    is_stopped: bool = False,
) -> Analysis:
    """Return what is known of the experiment and what to do.

    Call it as often as wanted: the verdict of a design with planned looks changes only at those. `Analysis.look` says
    whether this was one; then keep it and give it back with the later calls. The same arguments give the same answer.

    Args:
        design: fixed before the start.
        measured: what users did until now.
        past_looks: looks that earlier analyses took, oldest first.
        is_final: whether no more users will come, for a reason that has nothing to do with the results, such as the
            end date. The rest of the significance level is then spent.
        may_look: whether a planned look that is due may be taken; without it only past looks decide.
        is_stopped: whether somebody has ended it, for whatever reason: it cannot go on, even if it is not complete.
    """
    progress = progress_of(design, measured, is_final=is_final)
    figures = [metric_figures(metric, measured) for metric in design.metrics]
    tests = [
        [tested(each, arm, name, progress.planned_users) for each in figures]
        for arm, name in enumerate(measured.arms)
        if arm
    ]
    look = _look(design, tests, past_looks, progress) if may_look else None
    looks = (*past_looks, look) if look else tuple(past_looks)
    standings = [[_standing(each, looks, design) for each in arm] for arm in tests]
    comparisons = _comparisons(design, figures, tests, standings, progress)
    by_arm = [comparisons[first : first + len(figures)] for first in range(0, len(comparisons), len(figures))]
    verdicts = tuple(arm_verdict(design, *of_arm, looks) for of_arm in zip(tests, by_arm, standings, strict=True))
    srm = sample_ratio(progress.users, measured.shares)
    return Analysis(
        method=design.method,
        users=tuple(int(n) for n in progress.users.sum(axis=0)),
        figures=tuple(row for each in figures for row in arm_figures(each, measured.arms, posterior_of(each))),
        comparisons=tuple(comparisons),
        srm=srm,
        health=health(measured, srm, figures, verdicts),
        look=look,
        looks_taken=len(looks),
        alpha_spent=alpha_spent(design, looks),
        information_fraction=min(1.0, progress.fraction),
        days=measured.days,
        estimated_days_left=progress.days_left,
        segments=segment_effects(design, measured),
        recommendation=recommend(
            _situation(design, measured, progress, comparisons, verdicts, looks, is_stopped=is_stopped)
        ),
    )


def _situation(
    design: Design,
    measured: Measurements,
    progress: Progress,
    comparisons: list[Comparison],
    verdicts: tuple[ArmVerdict, ...],
    looks: Sequence[Look],
    *,
    is_stopped: bool,
) -> Situation:
    return Situation(
        design=design,
        srm=sample_ratio(progress.users, measured.shares),
        n_users=measured.n_users,
        n_conflicting=measured.n_conflicting,
        planned_users=progress.planned_users,
        verdicts=verdicts,
        comparisons=tuple(comparisons),
        is_complete=is_complete(design, looks, progress),
        is_stopped=is_stopped,
        missing=progress.missing,
        days_left=progress.days_left,
    )


def _look(design: Design, tests: list[list[Tested]], past: Sequence[Look], progress: Progress) -> Look | None:
    """Return the planned look that is due now, if any; a method without planned looks has none."""
    is_ready = not progress.missing
    if design.method == "always_valid" or not tests:
        return None
    if not is_due(design, past, progress.fraction, is_ready=is_ready, is_final=progress.is_final):
        return None
    return Look(
        users=progress.n_users,
        fraction=1.0 if progress.is_final else min(1.0, progress.fraction),
        days=progress.days,
        statistics=tuple(each.statistic() for arm in tests for each in arm),
    )


def _standing(of: Tested, looks: Sequence[Look], design: Design) -> Standing | None:
    statistics = [look.find(of.metric.name, of.name) for look in looks]
    return standing(statistics, looks, design.significance_level)


def _comparisons(
    design: Design,
    figures: list[MetricFigures],
    tests: list[list[Tested]],
    standings: list[list[Standing | None]],
    progress: Progress,
) -> list[Comparison]:
    """Return the comparisons arm by arm, metric by metric, with p-values adjusted within each role."""
    posteriors = [posterior_of(each) for each in figures]
    plain = [
        comparison(*each, design=design)
        for of_arm, stands in zip(tests, standings, strict=True)
        for each in zip(of_arm, figures, stands, posteriors, strict=True)
    ]
    p_values = [deciding_p_value(design, each, is_ready=not progress.missing) for each in plain]
    adjusted: list[Comparison] = list(plain)
    for role in ("primary", "secondary", "guardrail"):
        family = [place for place, each in enumerate(plain) if each.role == role]
        of_family = [p_values[place] for place in family]
        shared = holm(of_family) if design.correction == "holm" else of_family
        for place, p_value in zip(family, shared, strict=True):
            adjusted[place] = replace(plain[place], p_value_adjusted=p_value)
    return adjusted
