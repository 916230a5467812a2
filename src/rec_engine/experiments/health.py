"""What is wrong with an experiment, or missing, in sentences."""

from collections.abc import Sequence

import numpy as np

from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.metric_figures import MetricFigures
from rec_engine.experiments.results import SampleRatio
from rec_engine.experiments.verdicts import ArmVerdict
from rec_engine.experiments.wording import effect_of, probability


def health(
    measured: Measurements, srm: SampleRatio, figures: Sequence[MetricFigures], verdicts: Sequence[ArmVerdict]
) -> tuple[str, ...]:
    """Return the sentences, gravest first; none when all is well."""
    notes: list[str] = []
    if srm.status == "failed":
        p_values = [p for p in (srm.p_value, srm.sequential_p_value) if p is not None]
        notes.append(f"Arms do not have the shares of users they were given ({probability(min(p_values))}).")
    if measured.n_conflicting:
        notes.append(f"{measured.n_conflicting:,} users met two arms and are left out.")
    users = np.bincount(measured.arm, minlength=len(measured.arms))
    notes += [f"{name} has no users." for name, n in zip(measured.arms, users, strict=True) if n == 0]
    notes += [
        f"{name} has a single user: nothing varies." for name, n in zip(measured.arms, users, strict=True) if n == 1
    ]
    notes += [f"Guardrail {effect_of(each)} is harmed." for verdict in verdicts for each in verdict.harmed]
    notes += [note for each in figures for note in each.notes]
    return tuple(notes)
