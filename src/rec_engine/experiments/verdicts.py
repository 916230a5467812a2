"""What the evidence says of each arm, by the inference that the design chose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rec_engine.experiments.comparisons import Tested
from rec_engine.experiments.design import Design
from rec_engine.experiments.looks import Standing, margin_standing
from rec_engine.experiments.results import Comparison, Look

MIN_USERS_OF_HARM = 100
"""Users in an arm from which a guardrail is believed: the sequence that watches it holds in large samples."""


@dataclass(frozen=True, slots=True)
class ArmVerdict:
    """Where an arm stands; each list holds comparisons of this arm.

    Attributes:
        arm: its name.
        up: primary metrics that are better.
        down: primary metrics that are worse.
        harmed: guardrails that are worse than their margin, at any time.
        unsettled: guardrails that are not shown to be within their margin.
    """

    arm: str
    up: tuple[Comparison, ...]
    down: tuple[Comparison, ...]
    harmed: tuple[Comparison, ...]
    unsettled: tuple[Comparison, ...]

    @property
    def is_winner(self) -> bool:
        """Whether it may be deployed."""
        return bool(self.up) and not (self.down or self.harmed or self.unsettled)

    @property
    def is_out(self) -> bool:
        """Whether it may not, whatever else comes."""
        return bool(self.harmed) or (bool(self.down) and not self.up)


def deciding_p_value(design: Design, comparison: Comparison, *, is_ready: bool) -> float | None:
    """Return the p-value that the design's method decides by; None as long as it may not."""
    if design.method == "always_valid":
        return comparison.p_value_always_valid if is_ready else None
    return comparison.p_value_sequential


def arm_verdict(
    design: Design,
    tests: Sequence[Tested],
    comparisons: Sequence[Comparison],
    standings: Sequence[Standing | None],
    looks: Sequence[Look],
) -> ArmVerdict:
    """Return where an arm stands.

    Args:
        design: of the experiment.
        tests: of this arm, metric by metric.
        comparisons: the same, adjusted.
        standings: the same, by the planned looks.
        looks: taken so far.
    """
    level = design.significance_level
    up: list[Comparison] = []
    down: list[Comparison] = []
    for test, each, stands in zip(tests, comparisons, standings, strict=True):
        if each.role == "primary" and each.p_value_adjusted is not None and each.p_value_adjusted <= level:
            is_up = test.sign * (each.difference or 0) > 0 if stands is None else stands.is_up
            (up if is_up else down).append(each)
    guardrails = [pair for pair in zip(tests, comparisons, strict=True) if pair[1].role == "guardrail"]
    return ArmVerdict(
        arm=tests[0].name,
        up=tuple(up),
        down=tuple(down),
        harmed=tuple(each for test, each in guardrails if is_harmed(test, design)),
        unsettled=tuple(each for test, each in guardrails if not _is_within_margin(test, design, looks)),
    )


def is_harmed(of: Tested, design: Design) -> bool:
    """Return whether a guardrail is worse than its margin by the confidence sequence, so at any time.

    The level is shared by the guardrails and arms of the design.
    """
    if of.smallest_arm < MIN_USERS_OF_HARM:
        return False
    n_guardrails = sum(metric.role == "guardrail" for metric in design.metrics)
    share = n_guardrails * (of.n_arms - 1) if design.correction == "holm" else 1
    p_value = of.always_valid_p_value(design.significance_level / share, of.margin_ratio)
    is_worse = of.sign * float(np.nan_to_num(of.effect.z(of.margin_ratio))) < 0
    return is_worse and p_value is not None and p_value <= design.significance_level / share


def _is_within_margin(of: Tested, design: Design, looks: Sequence[Look]) -> bool:
    """Return whether it is shown to be no worse than its margin; without a margin it is enough not to be harmed."""
    level = design.significance_level
    if of.metric.margin == 0:
        return not is_harmed(of, design)
    if design.method == "always_valid":
        p_value = of.always_valid_p_value(level, of.margin_ratio)
        is_better = of.sign * float(np.nan_to_num(of.effect.z(of.margin_ratio))) > 0
        return is_better and p_value is not None and p_value <= level
    stands = margin_standing([look.find(of.metric.name, of.name) for look in looks], looks, level)
    return stands is not None and stands.is_up and stands.p_value <= level
