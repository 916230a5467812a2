"""The relative effect, (treatment - control) / control, with an interval that never contradicts the p-value."""

import math
from dataclasses import dataclass
from typing import Literal

from rec_engine.experiments.effects import Effect

Shape = Literal["interval", "below_and_above", "everything", "unknown"]


@dataclass(frozen=True, slots=True)
class RelativeInterval:
    """The relative effects that the data do not exclude.

    Attributes:
        low: lower end; None where there is none.
        high: upper end; None where there is none.
        shape: "interval" is what lies between the ends. Where the control's figure itself may be 0, a ratio to it has
            no bounds: "below_and_above" is all up to `low` and all from `high`, "everything" excludes nothing.
            "unknown" where there is no effect to speak of.
    """

    low: float | None
    high: float | None
    shape: Shape

    def contains(self, relative: float) -> bool:
        """Whether a relative effect is not excluded."""
        if self.low is None or self.high is None:
            return True
        if self.shape == "below_and_above":
            return relative <= self.low or relative >= self.high
        return self.low <= relative <= self.high


def relative_interval(effect: Effect, multiplier: float) -> RelativeInterval:
    """Return Fieller's interval: every ratio r for which treatment - r x control is not excluded.

    It solves (t - r c)^2 <= m^2 (v_t + r^2 v_c + (1 - r)^2 v_shared) for r. At r = 1 this is the test of no difference,
    hence it holds 0 exactly when the test does not reject at the same multiplier.

    Args:
        effect: of one arm, 0-d arrays.
        multiplier: standard errors to either side.

    References:
        Fieller, Some problems in interval estimation, 1954.
    """
    control, treatment = float(effect.control), float(effect.treatment)
    squared = multiplier**2
    shared = squared * float(effect.shared)
    a = control**2 - squared * float(effect.control_variance) - shared
    b = control * treatment - shared
    c = treatment**2 - squared * float(effect.treatment_variance) - shared
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)) or float(effect.standard_error) == 0:
        return RelativeInterval(None, None, "unknown")
    discriminant = b**2 - a * c
    if discriminant <= 0 or a == 0:
        return RelativeInterval(None, None, "everything")
    root = math.sqrt(discriminant)
    larger = b + math.copysign(root, b)
    first, second = larger / a - 1, c / larger - 1
    low, high = min(first, second), max(first, second)
    return RelativeInterval(low, high, "interval" if a > 0 else "below_and_above")
