"""What the service counts: every metric, its labels, and how the numbers of several workers become one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

BOUNDS_SECONDS = (
    *(0.00002, 0.00005),
    *(round(digit * 0.1**power, 6) for power in (4, 3, 2, 1) for digit in (1, 1.5, 2, 3, 5, 7)),
    *(1.0, 2.5),
)
"""Upper bounds of the histograms' buckets; one more has no bound."""
N_BUCKETS = len(BOUNDS_SECONDS) + 1
Kind = Literal["counter", "histogram", "sum", "largest", "age"]
Series = tuple[str, ...]
"""Name of a metric and the values of its labels."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What is counted.

    Attributes:
        name: without the prefix that all have.
        kind: counter, histogram, or how gauges of several workers become one. An age is kept as the time of birth.
        help: one sentence.
        labels: names of the labels.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def n_values(self) -> int:
        """Numbers that one series takes: for a histogram its buckets and the sum."""
        return N_BUCKETS + 1 if self.kind == "histogram" else 1

    @property
    def is_gauge(self) -> bool:
        """Whether it says how things stand; then a worker that is gone has no part in it."""
        return self.kind not in {"counter", "histogram"}


METRICS = (
    Metric("request_duration_seconds", "histogram", "Time to answer a request.", ("route", "status")),
    Metric("stage_duration_seconds", "histogram", "Time of each stage of a recommendation.", ("stage",)),
    Metric("errors_total", "counter", "Requests answered with a status of 400 or more.", ("status",)),
    Metric("answers_total", "counter", "Recommendations answered."),
    Metric("items_returned_total", "counter", "Items in those answers."),
    Metric(
        "computed_answers_total", "counter", "Answers not taken from the cache, by what is known of users.", ("user",)
    ),
    Metric("ranked_items_total", "counter", "Items of those answers that were re-ranked."),
    Metric("ranked_scores_total", "counter", "Click probabilities of those items, summed."),
    Metric("cache_lookups_total", "counter", "Looks into the cache of answers.", ("result",)),
    Metric("cache_level_lookups_total", "counter", "Looks into each level of the cache.", ("level", "result")),
    Metric("cache_level_errors_total", "counter", "Times that a level of the cache failed.", ("level",)),
    Metric("cache_memory_bytes", "sum", "Bytes of answers that the workers hold, each worker for itself."),
    Metric("degraded_answers_total", "counter", "Answers that had to do without a part.", ("part",)),
    Metric("feedback_events_total", "counter", "Events acknowledged, all of them on disk."),
    Metric("impressions_dropped_total", "counter", "Impressions that never reached the log."),
    Metric("pruned_rows_total", "counter", "Rows of the log that were removed for their age.", ("kind",)),
    Metric("experiment_exposures_total", "counter", "Users who met an arm.", ("experiment", "arm")),
    Metric("shadow_requests_total", "counter", "Requests that a shadow was to answer too.", ("version", "outcome")),
    Metric("shadow_overlap_total", "counter", "Shares of items that both models had, summed.", ("version",)),
    Metric("shadow_rank_biased_overlap_total", "counter", "Likeness of the orders, summed.", ("version",)),
    Metric("shadow_cpu_seconds_total", "counter", "CPU time of compared answers.", ("version", "model")),
    Metric("shadow_degraded_total", "counter", "Compared answers that lacked a part.", ("version", "model")),
    Metric("shadow_clicks_total", "counter", "Clicks on items of compared answers.", ("version", "found")),
    Metric("shadow_click_reciprocal_ranks_total", "counter", "1 / rank of those items, summed.", ("version", "model")),
    Metric("write_queue_depth", "sum", "Changes that wait to be written to the log."),
    Metric("users_in_memory", "sum", "Users whose live histories the workers hold, each worker for itself."),
    Metric("workers", "sum", "Server processes."),
    Metric("model_info", "largest", "1 for each version that a worker serves.", ("version",)),
    Metric("model_age_seconds", "age", "Time since the oldest model that a worker serves was made."),
)
METRIC_BY_NAME = {metric.name: metric for metric in METRICS}
COMBINE: dict[Kind, np.ufunc] = {"largest": np.maximum, "age": np.minimum}
"""How two workers' numbers become one, where they are not added."""
