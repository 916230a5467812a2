"""What the trial after a closed loop comes to: estimates beside the truth that they are of."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import norm

from rec_engine.evaluation.statistics import Estimate
from rec_engine.experiments.proposal import CONTROL, TREATMENT
from rec_engine.pipeline.loop_experiment import Finding
from rec_engine.pipeline.loop_figures import between, by_user, mean_of, regret_by_user
from rec_engine.pipeline.loop_people import OF_FIRST
from rec_engine.pipeline.loop_rankers import CORRECTED, UNCORRECTED
from rec_engine.pipeline.loop_trial import NEXT, Trial

Z = float(norm.ppf(0.975))


@dataclass(frozen=True, slots=True)
class Forecast:
    """Clicks at the first place of a first page, an answer, by the next version; it draws much where it is judged.

    Attributes:
        estimate: from the log of the version before; None where it was refused.
        refusals: why.
        by_truth: of the pages that it would have shown there.
        earned: in the time after, by those who met it, as little drawn as in the rounds.
    """

    estimate: Estimate | None
    refusals: tuple[str, ...]
    by_truth: Estimate
    earned: Estimate


@dataclass(frozen=True, slots=True)
class Correction:
    """Re-rankers that learned from the same answers, with correction for position and without; means over users.

    Attributes:
        correlation: name to the rank correlation of a user's scores with what attracts him.
        correlation_gain: with correction less without, for the same users.
        regret: name to the regret of the pages that it would have shown.
        regret_gain: with correction less without; below 0 it pays.
    """

    correlation: dict[str, Estimate]
    correlation_gain: Estimate
    regret: dict[str, Estimate]
    regret_gain: Estimate


@dataclass(frozen=True, slots=True)
class TrialFigures:
    """A trial.

    Attributes:
        forecast: of the next version.
        findings: experiment to what it says.
        true_difference: of the A/B test, relative, by the truth.
        correction: for position; None where too little was clicked to learn from.
    """

    forecast: Forecast
    findings: dict[str, Finding]
    true_difference: float
    correction: Correction | None


def trial_figures(trial: Trial) -> TrialFigures:
    """Return what a trial comes to."""
    tested = trial.tested
    return TrialFigures(
        forecast=_forecast(trial),
        findings=trial.findings,
        true_difference=float(tested[TREATMENT].mean() / tested[CONTROL].mean() - 1),  # type: ignore[operator]
        correction=_correction(trial) if CORRECTED in tested.columns else None,
    )


def _forecast(trial: Trial) -> Forecast:
    value = trial.estimate
    judged, met = trial.logged.filter("is_first_page"), trial.tested.filter("is_first_page", version=trial.version)
    dr = value.dr if value else None
    return Forecast(
        estimate=Estimate(dr.mean, dr.low, dr.high) if dr else None,
        refusals=value.refusals if value else ("the log has no answer to judge by",),
        by_truth=_over_answers(judged, f"{NEXT} {OF_FIRST}"),
        earned=_over_answers(met, "clicks_first"),
    )


def _correction(trial: Trial) -> Correction:
    names = CORRECTED, UNCORRECTED
    correlations = {name: by_user(trial.correlations, name) for name in names}
    regrets = {name: regret_by_user(trial.tested, name) for name in names}
    return Correction(
        correlation={name: mean_of(correlations[name]) for name in names},
        correlation_gain=between(correlations[CORRECTED], correlations[UNCORRECTED]),
        regret={name: mean_of(regrets[name]) for name in names},
        regret_gain=between(regrets[CORRECTED], regrets[UNCORRECTED]),
    )


def _over_answers(answers: pl.DataFrame, column: str) -> Estimate:
    """Return the mean over answers, as estimates from logs are, with an interval over users."""
    if answers.is_empty():
        return Estimate(np.nan, np.nan, np.nan)
    mean = float(answers[column].mean())  # type: ignore[arg-type]
    sums = answers.group_by("user").agg((pl.col(column) - mean).sum())[column].to_numpy()
    error = float(np.sqrt((sums**2).sum() * len(sums) / max(1, len(sums) - 1))) / answers.height
    return Estimate(mean, mean - Z * error, mean + Z * error)
