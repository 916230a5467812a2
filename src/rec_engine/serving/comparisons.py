"""What a shadow's answers and the served ones have in common, counted; and for which of the two a click speaks."""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from rec_engine.evaluation.overlap import overlap, rank_biased_overlap
from rec_engine.serving.answers import Answer
from rec_engine.serving.metrics import Series
from rec_engine.serving.state_schemas import ShadowFigures

MAX_COMPARED = 10_000
"""Compared answers that wait for clicks; a worker remembers those that it compared itself."""
Model = Literal["served", "shadow"]
SERVED: Model = "served"
SHADOW: Model = "shadow"
Outcome = Literal["compared", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer and what it took.

    Attributes:
        answer: as it leaves, or would.
        cpu_seconds: of the thread that made it; its wall time would hold what others did meanwhile.
    """

    answer: Answer
    cpu_seconds: float

    @property
    def item_ids(self) -> list[str]:
        """What is shown, best first, as text."""
        return [str(item_id) for item_id, *_ in msgspec.json.decode(self.answer.shown)]


@dataclass(frozen=True, slots=True)
class _Ranks:
    """Item to rank, from 1, in both answers to one request."""

    version: str
    served: dict[str, int]
    shadow: dict[str, int]


class Comparisons:
    """Counts in any thread; whoever owns the telemetry takes it there."""

    def __init__(self) -> None:
        self._counted: defaultdict[Series, float] = defaultdict(float)
        self._waiting: OrderedDict[str, _Ranks] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, version: str, outcome: Outcome) -> None:
        """Count what became of a request that a version was to answer too."""
        with self._lock:
            self._counted["shadow_requests_total", version, outcome] += 1

    def compare(self, version: str, request_id: str, served: Timed, shadow: Timed) -> None:
        """Count two answers to one request, and wait for clicks on the one that was shown."""
        shown, others = served.item_ids, shadow.item_ids
        alike, in_order = overlap(shown, others), rank_biased_overlap(shown, others)
        self.note(version, "compared")
        with self._lock:
            self._counted["shadow_overlap_total", version] += alike
            self._counted["shadow_rank_biased_overlap_total", version] += in_order
            for model, timed in ((SERVED, served), (SHADOW, shadow)):
                self._counted["shadow_cpu_seconds_total", version, model] += timed.cpu_seconds
                self._counted["shadow_degraded_total", version, model] += bool(timed.answer.degraded)
            self._waiting[request_id] = _Ranks(version, _ranks(shown), _ranks(others))
            if len(self._waiting) > MAX_COMPARED:
                self._waiting.popitem(last=False)

    def clicked(self, request_id: str, item_id: str) -> None:
        """Count a click on an item of a compared answer; a second one on the same item counts no more."""
        with self._lock:
            ranks = self._waiting.get(request_id)
            at = ranks.served.pop(item_id, None) if ranks else None
            if ranks is None or at is None:
                return
            other = ranks.shadow.get(item_id)
            self._counted["shadow_clicks_total", ranks.version, "yes" if other else "no"] += 1
            for model, rank in ((SERVED, at), (SHADOW, other)):
                self._counted["shadow_click_reciprocal_ranks_total", ranks.version, model] += 1 / rank if rank else 0

    def take(self) -> Mapping[Series, float]:
        """Return what was counted since the last call."""
        with self._lock:
            counted, self._counted = self._counted, defaultdict(float)
        return counted


def figures(totals: Mapping[Series, float]) -> ShadowFigures:
    """Return what the counts of one version say; means are None where there is nothing to take them of.

    Args:
        totals: name of the metric and labels but the version, to number, over all workers.
    """

    def total(*series: str) -> float:
        return totals.get(series, 0.0)

    def mean(n: float, *series: str) -> float | None:
        return round(total(*series) / n, 6) if n else None

    def each(name: str, n: float) -> dict[Model, float | None]:
        return {model: mean(n, name, model) for model in (SERVED, SHADOW)}

    n_compared = total("shadow_requests_total", "compared")
    n_found, n_missed = total("shadow_clicks_total", "yes"), total("shadow_clicks_total", "no")
    n_clicks = n_found + n_missed
    return ShadowFigures(
        n_compared=int(n_compared),
        n_dropped=int(total("shadow_requests_total", "dropped")),
        n_failed=int(total("shadow_requests_total", "failed")),
        overlap=mean(n_compared, "shadow_overlap_total"),
        rank_biased_overlap=mean(n_compared, "shadow_rank_biased_overlap_total"),
        cpu_seconds=each("shadow_cpu_seconds_total", n_compared),
        degraded_share=each("shadow_degraded_total", n_compared),
        n_clicks=int(n_clicks),
        clicks_found=mean(n_clicks, "shadow_clicks_total", "yes"),
        click_reciprocal_rank=each("shadow_click_reciprocal_ranks_total", n_clicks),
    )


def _ranks(item_ids: list[str]) -> dict[str, int]:
    return {item_id: rank for rank, item_id in enumerate(item_ids, start=1)}
