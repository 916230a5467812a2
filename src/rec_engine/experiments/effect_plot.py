"""An effect over time as SVG text that stands in a page by itself, made without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 260, 64, 28, 12, 12
MOST = 5.0
"""Relative effects beyond this are drawn at the edge: a first day's interval would flatten all others."""
Interval = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Point:
    """A relative effect at a moment.

    Attributes:
        timestamp: Unix seconds.
        effect: (treatment - control) / control.
        sequence: interval that holds at all moments together; an end is None where it has no bound.
        interval: that holds at the planned end.
        is_look: whether it was a planned look.
    """

    timestamp: int
    effect: float
    sequence: Interval | None
    interval: Interval | None
    is_look: bool


def effect_plot(points: Sequence[Point], label: str) -> str:
    """Return the effect, its interval and the always-valid sequence over time; nothing for no points.

    Args:
        points: in any order.
        label: for who cannot see it; it has to be escaped.
    """
    if not points:
        return ""
    ordered = sorted(points, key=lambda point: point.timestamp)
    scale = _Scale.of(ordered)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{_axes(scale, ordered)}{_band(scale, ordered)}{''.join(_mark(scale, each) for each in ordered)}</svg>"
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where moments and effects lie on the page."""

    first: int
    last: int
    low: float
    high: float

    @classmethod
    def of(cls, points: Sequence[Point]) -> "_Scale":
        ends = [0.0]
        for point in points:
            both = (*(point.sequence or ()), *(point.interval or ()), point.effect)
            ends += [max(-MOST, min(MOST, end)) for end in both if end is not None]
        spare = 0.06 * (max(ends) - min(ends)) or 0.01
        return cls(points[0].timestamp, points[-1].timestamp, min(ends) - spare, max(ends) + spare)

    def x(self, timestamp: int) -> float:
        span = self.last - self.first
        share = (timestamp - self.first) / span if span else 0.5
        return round(LEFT + 16 + share * (WIDTH - LEFT - RIGHT - 32), 1)

    def y(self, effect: float | None, without: float) -> float:
        """Return the height of an effect, or of the edge where it has no bound."""
        within = max(self.low, min(self.high, without if effect is None else effect))
        return round(TOP + (self.high - within) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM), 1)


def _axes(scale: _Scale, points: Sequence[Point]) -> str:
    parts = []
    for place in range(5):
        effect = scale.low + place / 4 * (scale.high - scale.low)
        at = scale.y(effect, 0.0)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{effect:+.1%}</text>')
    zero = scale.y(0.0, 0.0)
    parts.append(f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero}" y2="{zero}"/>')
    for point, anchor in zip(dict.fromkeys((points[0], points[-1])), ("start", "end"), strict=False):
        day = f"{datetime.fromtimestamp(point.timestamp, UTC):%Y-%m-%d}"
        parts.append(f'<text x="{scale.x(point.timestamp)}" y="{HEIGHT - 8}" text-anchor="{anchor}">{day}</text>')
    return "".join(parts)


def _band(scale: _Scale, points: Sequence[Point]) -> str:
    """Return the always-valid sequence as an area."""
    known = [(point, point.sequence) for point in points if point.sequence is not None]
    above = [f"{scale.x(point.timestamp)},{scale.y(ends[1], scale.high)}" for point, ends in known]
    below = [f"{scale.x(point.timestamp)},{scale.y(ends[0], scale.low)}" for point, ends in reversed(known)]
    return f'<polygon class="band" points="{" ".join(above + below)}"/>' if known else ""


def _mark(scale: _Scale, point: Point) -> str:
    x, y = scale.x(point.timestamp), scale.y(point.effect, 0.0)
    kind = "look" if point.is_look else "day"
    bar = ""
    if point.interval is not None:
        low, high = scale.y(point.interval[0], scale.low), scale.y(point.interval[1], scale.high)
        bar = f'<line class="{kind}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'
    return f'{bar}<circle class="{kind}" cx="{x}" cy="{y}" r="{5 if point.is_look else 3}"/>'
