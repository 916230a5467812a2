"""Metrics against ranx, against hand-made cases, and against what must hold for all lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranx import Qrels, Run
from ranx import evaluate as ranx_evaluate

from rec_engine.data.dataset import IntArray, LongArray
from rec_engine.errors import DataError
from rec_engine.evaluation.metrics import (
    METRICS,
    RecommendationMetrics,
    catalogue_coverage,
    gini,
    hits_matrix,
    intra_list_distance,
    mean_novelty,
)

N_ITEMS = 50
PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure


def random_lists(seed: int, n_users: int = 300, length: int = 30) -> tuple[IntArray, list[list[int]]]:
    rng = np.random.default_rng(seed)
    ranked = np.argsort(rng.random((n_users, N_ITEMS)), axis=1)[:, :length].astype(np.int32)
    relevant = [sorted(rng.choice(N_ITEMS, rng.integers(1, 25), replace=False).tolist()) for _ in range(n_users)]
    return ranked, relevant


def csr(relevant: list[list[int]]) -> tuple[IntArray, LongArray]:
    codes = np.array([item for items in relevant for item in items], dtype=np.int32)
    return codes, np.concatenate([[0], np.cumsum([len(items) for items in relevant])]).astype(np.int64)


@pytest.mark.filterwarnings("ignore:unsafe cast")  # of ranx' own code, as numba compiles it
def test_every_metric_equals_ranx_on_random_lists() -> None:
    ranked, relevant = random_lists(seed=1)
    hits = hits_matrix(ranked, *csr(relevant), N_ITEMS)
    n_relevant = np.array([len(items) for items in relevant])
    qrels = Qrels({f"u{u}": {f"i{item}": 1 for item in items} for u, items in enumerate(relevant)})
    run = Run(
        {
            f"u{u}": {f"i{item}": float(100 - rank) for rank, item in enumerate(row)}
            for u, row in enumerate(ranked.tolist())
        }
    )
    names = [f"{metric}@{k}" for metric in METRICS for k in (1, 5, 10, 30)]
    ranx_evaluate(qrels, run, names, make_comparable=True)
    for metric, function in METRICS.items():
        for k in (1, 5, 10, 30):
            expected = run.scores[f"{metric}@{k}"]
            ours = function(hits, n_relevant, k)
            theirs = np.array([expected[f"u{u}"] for u in range(len(relevant))])
            assert np.abs(ours - theirs).max() < 1e-9, f"{metric}@{k}"


lists = st.lists(st.integers(0, 20), min_size=1, max_size=15, unique=True)
lists_with_repeats = st.lists(st.integers(0, 20), min_size=1, max_size=15)
OF_ONE_LIST = {
    "ndcg": RecommendationMetrics.ndcg_at_k,
    "recall": RecommendationMetrics.recall_at_k,
    "precision": RecommendationMetrics.precision_at_k,
    "f1": RecommendationMetrics.f1_at_k,
    "hit_rate": RecommendationMetrics.hit_rate,
    "mrr": RecommendationMetrics.mean_reciprocal_rank,
    "map": RecommendationMetrics.average_precision,
}


@PROPERTY
@given(lists, lists, st.integers(1, 20))
def test_every_metric_lies_between_0_and_1(recommended: list[int], relevant: list[int], k: int) -> None:
    hits = hits_matrix(np.array([recommended], dtype=np.int32), *csr([relevant]), 21)
    for function in METRICS.values():
        assert 0 <= function(hits, np.array([len(relevant)]), k)[0] <= 1


@PROPERTY
@given(lists)
def test_perfect_list_is_1_and_worst_is_0(relevant: list[int]) -> None:
    k = len(relevant)
    others = [item + 100 for item in relevant]
    for metric in OF_ONE_LIST.values():
        assert metric(relevant, relevant, k) == pytest.approx(1)
        assert metric(others, relevant, k) == 0


@PROPERTY
@given(lists_with_repeats, lists, st.integers(1, 20))
def test_one_list_and_the_matrix_agree(recommended: list[int], relevant: list[int], k: int) -> None:
    hits = hits_matrix(np.array([recommended], dtype=np.int32), *csr([relevant]), 21)
    for name, metric in OF_ONE_LIST.items():
        assert metric(recommended, relevant, k) == METRICS[name](hits, np.array([len(relevant)]), k)[0], name


@PROPERTY
@given(st.lists(st.lists(st.integers(-1, 20), min_size=6, max_size=6), min_size=1, max_size=5), st.data())
def test_hits_are_first_places_of_relevant_items(ranked: list[list[int]], data: st.DataObject) -> None:
    relevant = [sorted(data.draw(st.sets(st.integers(0, 20), max_size=8))) for _ in ranked]
    hits = hits_matrix(np.array(ranked, dtype=np.int32), *csr(relevant), 21)
    expected = [
        [item in wanted and item not in row[:rank] for rank, item in enumerate(row)]
        for row, wanted in zip(ranked, relevant, strict=True)
    ]
    assert hits.tolist() == expected


@PROPERTY
@given(lists, lists, st.integers(1, 20))
def test_what_lies_below_k_does_not_count(recommended: list[int], relevant: list[int], k: int) -> None:
    for name, metric in OF_ONE_LIST.items():
        assert metric(recommended, relevant, k) == metric(recommended[:k], relevant, k), name


def test_hand_made_case() -> None:
    recommended, relevant = ["a", "b", "c", "d"], {"b", "d", "x"}
    assert RecommendationMetrics.precision_at_k(recommended, relevant, 4) == pytest.approx(2 / 4)
    assert RecommendationMetrics.precision_at_k(recommended, relevant, 8) == pytest.approx(2 / 8)
    assert RecommendationMetrics.recall_at_k(recommended, relevant, 4) == pytest.approx(2 / 3)
    assert RecommendationMetrics.f1_at_k(recommended, relevant, 4) == pytest.approx(2 * 2 / (4 + 3))
    assert RecommendationMetrics.hit_rate(recommended, relevant) == 1
    assert RecommendationMetrics.hit_rate(recommended, relevant, 1) == 0
    assert RecommendationMetrics.mean_reciprocal_rank(recommended, relevant) == pytest.approx(1 / 2)
    assert RecommendationMetrics.average_precision(recommended, relevant) == pytest.approx((1 / 2 + 2 / 4) / 3)
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert RecommendationMetrics.ndcg_at_k(recommended, relevant, 4) == pytest.approx(
        (1 / np.log2(3) + 1 / np.log2(5)) / ideal
    )


def test_a_repeated_item_counts_once() -> None:
    assert RecommendationMetrics.recall_at_k(["a", "a"], {"a", "b"}, 2) == pytest.approx(1 / 2)
    hits = hits_matrix(np.array([[3, 3, 1, 3]], dtype=np.int32), *csr([[3]]), 5)
    assert hits.tolist() == [[True, False, False, False]]


def test_padding_is_never_a_hit() -> None:
    hits = hits_matrix(np.array([[2, -1], [-1, -1]], dtype=np.int32), *csr([[4], [2]]), 5)
    assert not hits.any()


@pytest.mark.parametrize("code", [5, -2])
def test_codes_outside_the_catalogue_are_an_error(code: int) -> None:
    with pytest.raises(DataError, match="catalogue of 5"):
        hits_matrix(np.array([[code], [0]], dtype=np.int32), *csr([[4], [0]]), 5)


def test_users_without_relevant_items_are_nan() -> None:
    for metric in OF_ONE_LIST.values():
        assert np.isnan(metric(["a"], [], 5))


def test_a_user_without_recommendations_gets_0() -> None:
    for metric in OF_ONE_LIST.values():
        assert metric([], ["a"], 5) == 0


@PROPERTY
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(1, 9))
def test_gini_knows_neither_order_nor_scale(counts: list[int], scale: int) -> None:
    value = gini(np.array(counts))
    assert -1e-12 <= value < 1
    assert gini(scale * np.array(counts[::-1])) == pytest.approx(value)


def test_list_metrics_on_hand_made_cases() -> None:
    ranked = np.array([[0, 1], [0, -1]], dtype=np.int32)
    assert catalogue_coverage(ranked, 4) == 0.5
    assert gini(np.array([1, 1, 1])) == pytest.approx(0)
    assert gini(np.array([0, 0, 3])) == pytest.approx(2 / 3)
    assert gini(np.zeros(3)) == 0
    assert mean_novelty(ranked, np.array([4, 1, 0, 0], dtype=np.float32), 4) == pytest.approx((0 + 2 + 0) / 3)
    vectors = np.array([[1, 0], [0, 2], [1, 1], [-3, 0]], dtype=np.float32)
    distances = intra_list_distance(np.array([[0, 1, -1], [0, 3, -1], [2, -1, -1]], dtype=np.int32), vectors)
    assert distances[:2] == pytest.approx([1.0, 2.0])
    assert np.isnan(distances[2])


def test_list_metrics_of_the_class() -> None:
    assert RecommendationMetrics.coverage([["a", "b"], ["a"]], 4) == 0.5
    assert RecommendationMetrics.novelty([["a", "b"], ["a"]], {"a": 4, "b": 1}, 4) == pytest.approx(2 / 3)
    assert RecommendationMetrics.gini([["a", "b"], ["a", "b"]], 2) == pytest.approx(0)
    assert RecommendationMetrics.gini([["a"], ["a"]], 2) == pytest.approx(1 / 2)
    assert RecommendationMetrics.diversity(np.array([[1, 0], [0, 1]], dtype=np.float32)) == pytest.approx(1)
