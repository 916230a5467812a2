"""Figures in sentences."""

from collections.abc import Sequence

from rec_engine.experiments.results import Comparison


def effect_of(comparison: Comparison) -> str:
    """Return a comparison as a phrase: metric, arm, relative effect (or difference) and interval."""
    name = f"{comparison.metric} of {comparison.arm}"
    if comparison.relative is not None:
        interval = comparison.relative_ci
        if interval is None or interval[0] is None or interval[1] is None:
            return f"{name} {signed_per_cent(comparison.relative)}"
        ends = f"{signed_per_cent(interval[0])} to {signed_per_cent(interval[1])}"
        return f"{name} {signed_per_cent(comparison.relative)} (interval {ends})"
    if comparison.difference is None:
        return f"{name} cannot be compared"
    if comparison.ci is None:
        return f"{name} {comparison.difference:+.4g}"
    return f"{name} {comparison.difference:+.4g} (interval {comparison.ci[0]:+.4g} to {comparison.ci[1]:+.4g})"


def per_cent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.3g}%"


def signed_per_cent(share: float) -> str:
    """Return a relative effect as a percentage with its sign."""
    return f"{100 * share:+.3g}%"


def probability(p_value: float) -> str:
    """Return a p-value as "p = 0.012", or "p < 0.0001"."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def listed(words: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
