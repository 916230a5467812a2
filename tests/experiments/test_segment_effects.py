"""Effects by segment: beside, and never part of, the verdict."""

from dataclasses import replace

import numpy as np
import pytest
from samples import PRIMARY, measured

from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.design import Design


def test_a_segment_is_the_experiment_among_its_users() -> None:
    users = measured(4_000, effects={"main": (0.02,)})
    country = np.where(np.arange(4_000) % 3 == 0, "de", "fr")
    design = Design(metrics=(PRIMARY,))
    found = analyze(design, replace(users, segments={"country": country}))
    assert [(each.value, each.users) for each in found.segments] == [("fr", 2_666), ("de", 1_334)]
    chosen = country == "de"
    alone = replace(
        users, arm=users.arm[chosen], phase=users.phase[chosen], totals={"main": users.totals["main"][chosen]}
    )
    expected = analyze(design, alone).find("main", "treatment")
    assert found.segments[1].difference == pytest.approx(expected.difference)
    assert found.segments[1].ci == pytest.approx(expected.ci)
    assert (found.segments[1].p_value_adjusted or 0) >= (expected.p_value or 1)
    assert all(each.is_exploratory for each in found.segments)
    assert found.recommendation == analyze(design, users).recommendation


def test_only_the_largest_of_many_segments_are_shown() -> None:
    users = measured(500)
    city = np.array([f"city {i % 60}" for i in range(500)])
    assert len(analyze(Design(metrics=(PRIMARY,)), replace(users, segments={"city": city})).segments) == 20
