"""Who gains and who loses: the primary metrics among the users of each segment, to look at and not to decide by."""

from dataclasses import replace

import numpy as np
from scipy import special

from rec_engine.experiments.comparisons import number
from rec_engine.experiments.design import Design
from rec_engine.experiments.effects import compare
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.metric_figures import plain_estimates
from rec_engine.experiments.multiplicity import holm
from rec_engine.experiments.results import SegmentEffect

MAX_VALUES = 20
"""Values of an attribute that are shown, those with most users first."""


def segment_effects(design: Design, measured: Measurements) -> tuple[SegmentEffect, ...]:
    """Return the effects on primary metrics in each segment, p-values adjusted over all of them by Holm."""
    effects: list[SegmentEffect] = []
    p_values: list[float | None] = []
    for attribute in measured.segments:
        for effect, p_value in _of_attribute(attribute, design, measured):
            effects.append(effect)
            p_values.append(p_value)
    return tuple(
        replace(effect, p_value_adjusted=p_value) for effect, p_value in zip(effects, holm(p_values), strict=True)
    )


def _of_attribute(attribute: str, design: Design, measured: Measurements) -> list[tuple[SegmentEffect, float | None]]:
    names, code, users = np.unique(measured.segments[attribute], return_inverse=True, return_counts=True)
    shape = (len(names), *measured.shares.shape)
    cell = (code * shape[1] + measured.phase) * shape[2] + measured.arm
    shown = np.argsort(-users, kind="stable")[:MAX_VALUES]
    found = []
    for metric in design.metrics:
        if metric.role != "primary":
            continue
        of = plain_estimates(metric, measured, cell, shape)
        for arm in range(1, shape[2]):
            effect = compare(of, arm)
            critical = effect.critical(-special.ndtri(design.significance_level / 2))
            p_value, (low, high) = effect.p_value(), effect.interval(critical)
            for at in shown:
                ends = number(low[at]), number(high[at])
                found.append(
                    (
                        SegmentEffect(
                            attribute,
                            str(names[at]),
                            metric.name,
                            measured.arms[arm],
                            int(users[at]),
                            number(effect.difference[at]),
                            None if ends[0] is None or ends[1] is None else (ends[0], ends[1]),
                            None,
                        ),
                        number(p_value[at]),
                    )
                )
    return found
