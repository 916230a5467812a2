"""Metrics by name, and what part each of them has in the verdict."""

import pytest

from rec_engine.errors import DataError, NotFoundError
from rec_engine.experiments.design import Metric
from rec_engine.experiments.standard_metrics import metrics_of


def roles(*names: str | Metric, guardrails: tuple[str, ...] = ()) -> dict[str, str]:
    return {metric.name: metric.role for metric in metrics_of(names, guardrails)}


def test_the_first_one_decides_and_what_is_named_twice_is_a_guardrail() -> None:
    found = roles("ctr", "conversion_rate", "revenue_per_user", guardrails=("revenue_per_user",))
    assert found == {"ctr": "primary", "conversion_rate": "secondary", "revenue_per_user": "guardrail"}


def test_a_metric_that_says_it_decides_is_believed() -> None:
    mine = Metric(name="basket", numerator="basket", role="primary")
    assert roles("ctr", mine) == {"ctr": "secondary", "basket": "primary"}


def test_without_anything_to_decide_by_there_is_no_experiment() -> None:
    with pytest.raises(DataError, match="every metric is a guardrail"):
        metrics_of(["ctr"], ["ctr"])
    with pytest.raises(NotFoundError, match="no metric 'happiness'"):
        metrics_of(["ctr"], ["happiness"])
