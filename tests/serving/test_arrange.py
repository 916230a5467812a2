"""Arranging chooses among candidates: it adds none, loses none, and knows the probabilities of what it draws."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import interactions

from rec_engine.data.dataset import FloatArray
from rec_engine.data.timeline import Timeline
from rec_engine.models.features import ItemTable
from rec_engine.serving.arrange import BY_SCORE, Arrangement, Slate, arrange

N = 12
RNG = np.random.default_rng(0)
VECTORS: FloatArray = RNG.standard_normal((N, 4)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
ITEMS = ItemTable(VECTORS, Timeline(interactions([[0]]), N), np.zeros(N, dtype=np.uint64), {})
CODES = np.arange(N, dtype=np.int32)
LABELS = {"brand": (CODES % 3 - 1).astype(np.int32)}  # -1 is no brand

arrangements = st.builds(
    Arrangement,
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
    caps=st.sampled_from([{}, {"brand": 1}, {"brand": 2}]),
    labels=st.just(LABELS),
    seed=st.integers(0, 5),
) | st.builds(
    Arrangement,
    exploration=st.sampled_from([0.1, 1.0, 10.0]),
    caps=st.sampled_from([{}, {"brand": 1}]),
    labels=st.just(LABELS),
    seed=st.integers(0, 5),
)
scores = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=N)


def arranged(values: list[float], k: int, arrangement: Arrangement) -> Slate:
    return arrange(np.array(values, dtype=np.float32), CODES[: len(values)], k, arrangement, ITEMS)


@given(values=scores, k=st.integers(1, 15), arrangement=arrangements)
def test_a_slate_is_complete_without_repetition_and_has_probabilities(
    values: list[float], k: int, arrangement: Arrangement
) -> None:
    slate = arranged(values, k, arrangement)
    assert len(slate.places) == len(set(slate.places.tolist())) == min(k, len(values))
    assert ((slate.propensities > 0) & (slate.propensities <= 1)).all()
    assert not set(slate.held_back) & set(slate.places.tolist())


@given(values=scores, k=st.integers(1, 15))
def test_by_score_alone_the_best_come_first_equal_ones_by_code(values: list[float], k: int) -> None:
    expected = sorted(range(len(values)), key=lambda place: (-np.float32(values[place]), place))[:k]
    assert arranged(values, k, BY_SCORE).places.tolist() == expected


@given(values=st.lists(st.floats(-5, 5, width=32), min_size=N, max_size=N), cap=st.integers(1, 3))
def test_caps_hold_as_long_as_there_are_others(values: list[float], cap: int) -> None:
    slate = arranged(values, 4 + 2 * cap, Arrangement(caps={"brand": cap}, labels=LABELS))
    brands = LABELS["brand"][slate.places]
    assert all((brands == brand).sum() <= cap for brand in (0, 1))


def test_diversity_takes_the_unlike_one_of_two_equally_good() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    items = ItemTable(vectors, ITEMS.timeline, np.zeros(3, dtype=np.uint64), {})
    scores = np.array([3.0, 2.9, 2.8], dtype=np.float32)
    plain = arrange(scores, CODES[:3], 2, BY_SCORE, items)
    diverse = arrange(scores, CODES[:3], 2, Arrangement(diversity=0.7), items)
    assert (plain.places.tolist(), diverse.places.tolist()) == ([0, 1], [0, 2])


@pytest.mark.parametrize("caps", [{}, {"brand": 1}])
def test_propensities_are_the_shares_with_which_slates_are_drawn(caps: dict[str, int]) -> None:
    values, labels = [1.0, 0.5, 0.0], {"brand": np.array([0, 0, 1], dtype=np.int32)}
    n_draws = 4_000
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    probability: dict[tuple[int, ...], float] = {}
    for seed in range(n_draws):
        slate = arranged(values, 3, Arrangement(exploration=1.0, caps=caps, labels=labels, seed=seed))
        order = tuple(slate.places.tolist())
        counts[order] += 1
        probability[order] = float(slate.propensities.prod())
    assert sum(probability.values()) == pytest.approx(1.0)
    for order, expected in probability.items():
        spread = 4 * np.sqrt(expected * (1 - expected) / n_draws)
        assert abs(counts[order] / n_draws - expected) < spread
