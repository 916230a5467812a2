"""Baselines on worlds whose answer is known, and against dense references of their formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import as_frame, checkerboard, interactions, popularity_only, two_clusters

from rec_engine.data.dataset import FloatArray, Interactions, RecommendationDataset
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import rank_by_score
from rec_engine.models.baselines import (
    BASELINES,
    EASE,
    MAX_EASE_ITEMS,
    Baseline,
    Covisitation,
    ItemKNN,
    OwnHistory,
    Popularity,
    RecentPopularity,
)

N = 40


def fitted(model: Baseline, train: Interactions, n_items: int) -> Baseline:
    model.fit(train, n_items)
    return model


def scores(model: Baseline, history: Interactions) -> FloatArray:
    return model.scorer(history)(np.arange(history.n_users, dtype=np.int32))


def dense(history: Interactions, n_items: int) -> FloatArray:
    matrix = np.zeros((history.n_users, n_items), dtype=np.float32)
    matrix[history.user_codes, history.item_codes] = 1
    return matrix


@pytest.mark.parametrize("name", ["co-visitation", "ItemKNN", "EASE"])
def test_the_withheld_item_of_the_checkerboard_comes_first(name: str) -> None:
    world = checkerboard(N)
    model = fitted(BASELINES[name](), world, N)
    ranked = rank_by_score(model.scorer(world), world)(np.arange(N, dtype=np.int32), 1)
    assert ranked[:, 0].tolist() == list(range(N))


@pytest.mark.parametrize("name", ["co-visitation", "ItemKNN", "EASE"])
def test_the_own_cluster_comes_before_the_other(name: str) -> None:
    world = two_clusters(n_users=20, n_items=10, n_met=5)
    model = fitted(BASELINES[name](), world, 20)
    ranked = rank_by_score(model.scorer(world), world)(np.arange(40, dtype=np.int32), 5)
    assert (ranked // 10 == np.repeat([0, 1], 20)[:, None]).all()


def test_popularity_is_right_where_all_have_one_taste() -> None:
    world = popularity_only(n_items=8)
    nobody = interactions([[]])
    ranked = rank_by_score(fitted(Popularity(), world, 8).scorer(nobody), nobody)(np.array([0], dtype=np.int32), 8)
    assert ranked.tolist() == [list(range(8))]


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_world_loaded_as_a_table_is_scored_the_same(name: str) -> None:
    world = checkerboard(N)
    loaded = RecommendationDataset(as_frame(world)).interactions
    assert np.array_equal(
        scores(fitted(BASELINES[name](), loaded, N), loaded), scores(fitted(BASELINES[name](), world, N), world)
    )


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_setting_of_the_grid_fits_and_batches_equal_single_users(name: str) -> None:
    world = checkerboard(N)
    for setting in BASELINES[name].GRID:
        score = fitted(BASELINES[name](**setting), world, N).scorer(world)
        together = score(np.arange(N, dtype=np.int32))
        assert together.shape == (N, N)
        assert np.allclose(together[3:4], score(np.array([3], dtype=np.int32)), atol=1e-5)


@pytest.mark.parametrize("name", list(BASELINES))
def test_negative_feedback_is_not_learned_from(name: str) -> None:
    liked = interactions([[0, 1], [1, 2]])
    with_dislikes = interactions([[0, 1, 3], [1, 2, 3]], [[1, 1, -1], [1, 1, -1]])
    assert np.allclose(
        scores(fitted(BASELINES[name](), liked, 4), liked),
        scores(fitted(BASELINES[name](), with_dislikes, 4), with_dislikes),
    )


def test_popularity_counts_users_and_not_repetitions() -> None:
    model = fitted(Popularity(), interactions([[0, 0, 0, 1], [1]]), 3)
    assert scores(model, interactions([[]])).tolist() == [[1, 2, 0]]


def test_recent_popularity_counts_the_last_days_only() -> None:
    train = interactions([[0, 1, 2, 2]])
    late = train.timestamps.copy()
    late[0] -= 40 * 86_400
    aged = Interactions(train.item_codes, late, train.events, train.values, train.weights, train.starts)
    assert scores(fitted(RecentPopularity(days=30), aged, 3), aged).tolist() == [[0, 1, 2]]


def test_covisitation_weights_distance_and_recency() -> None:
    model = fitted(Covisitation(last=2, window=2, damping=0), interactions([[0, 1, 2]]), 3)
    assert scores(model, interactions([[0]]))[0].tolist() == pytest.approx([0, 1, 0.5])
    assert scores(model, interactions([[0, 1]]))[0].tolist() == pytest.approx([0, 0.5, 1 + 0.25])
    assert scores(model, interactions([[0, 1, 1]]))[0].tolist() == pytest.approx([0, 0, 1 + 0.5])


def test_covisitation_damps_popular_followers() -> None:
    train = interactions([[0, 1], [2, 1], [3, 1], [0, 4]])
    plain, damped = (scores(fitted(Covisitation(damping=d), train, 5), interactions([[0]]))[0] for d in (0.0, 0.5))
    assert plain[1] == plain[4]
    assert damped[1] == pytest.approx(damped[4] / np.sqrt(3))


def test_covisitation_never_crosses_users() -> None:
    assert scores(fitted(Covisitation(), interactions([[0], [1]]), 2), interactions([[0]])).tolist() == [[0, 0]]


def test_itemknn_is_the_dense_formula() -> None:
    world = checkerboard(12)
    matrix = dense(world, 12)
    common = matrix.T @ matrix
    norms = np.sqrt(np.diag(common))
    expected = common / (norms[:, None] * norms + 5)
    np.fill_diagonal(expected, 0)
    assert np.allclose(scores(fitted(ItemKNN(neighbours=12, shrink=5), world, 12), world), matrix @ expected, atol=1e-4)


SMALL = [[0, 1], [0, 1], [0, 2], [3]]  # item 0 was met by three users, 1 by two, 2 and 3 by one


def test_itemknn_by_hand() -> None:
    one_each = interactions([[0], [1], [2], [3]])
    found = scores(fitted(ItemKNN(neighbours=4, shrink=1), interactions(SMALL), 4), one_each)
    near, far = 2 / (np.sqrt(3 * 2) + 1), 1 / (np.sqrt(3 * 1) + 1)
    assert np.allclose(found, [[0, near, far, 0], [near, 0, 0, 0], [far, 0, 0, 0], [0, 0, 0, 0]])


def test_itemknn_keeps_the_nearest_neighbours_only() -> None:
    model = ItemKNN(neighbours=1, shrink=0)
    model.fit(interactions(SMALL), 4)
    near, far = 2 / np.sqrt(6), 1 / np.sqrt(3)
    expected = [[0, near, 0, 0], [near, 0, 0, 0], [far, 0, 0, 0], [0, 0, 0, 0]]
    assert np.allclose(model.similarity.toarray(), expected)


@pytest.mark.parametrize("n_items_a_block", [1, 5, 12])
def test_itemknn_does_not_depend_on_the_size_of_its_blocks(n_items_a_block: int) -> None:
    model, in_blocks = ItemKNN(neighbours=3), ItemKNN(neighbours=3)
    in_blocks.ITEMS_A_BLOCK = n_items_a_block
    model.fit(checkerboard(12), 12)
    in_blocks.fit(checkerboard(12), 12)
    assert np.array_equal(model.similarity.toarray(), in_blocks.similarity.toarray())


def test_ease_by_hand() -> None:
    # With two items each column is a ridge regression on one variable: common / (users of the other + 1).
    model = EASE(regularisation=1)
    model.fit(interactions([[0, 1], [0]]), 2)
    assert np.allclose(model.weights, [[0, 1 / 3], [1 / 2, 0]])


def test_ease_is_the_constrained_least_squares_solution() -> None:
    world = checkerboard(12)
    matrix = dense(world, 12).astype(np.float64)
    model = EASE(regularisation=3)
    model.fit(world, 12)
    for item in range(12):  # each column: ridge regression on the others, item itself left out
        others = [other for other in range(12) if other != item]
        gram = matrix[:, others].T @ matrix[:, others] + 3 * np.eye(11)
        expected = np.linalg.solve(gram, matrix[:, others].T @ matrix[:, item])
        assert np.allclose(model.weights[others, item], expected, atol=1e-5)
    assert not np.diag(model.weights).any()


def test_ease_refuses_catalogues_whose_matrix_would_not_fit() -> None:
    with pytest.raises(TrainingError, match="12,501 x 12,501: 3 GB") as caught:
        EASE().fit(checkerboard(4), MAX_EASE_ITEMS + 1)
    assert "12,500" in caught.value.hint


worlds = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=6), min_size=1, max_size=6)


@pytest.mark.parametrize("name", list(BASELINES))
@settings(max_examples=25, deadline=None)
@given(rows=worlds, seed=st.integers(0, 1000))
def test_the_order_of_users_and_the_names_of_items_do_not_matter(name: str, rows: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, codes = rng.permutation(len(rows)), rng.permutation(8)
    renamed = [[int(codes[item]) for item in rows[user]] for user in users]
    found = scores(fitted(BASELINES[name](), interactions(rows), 8), interactions(rows))
    again = scores(fitted(BASELINES[name](), interactions(renamed), 8), interactions(renamed))
    assert np.allclose(again[:, codes], found[users], atol=1e-5)


@pytest.mark.parametrize("name", ["popularity", "ItemKNN", "EASE"])
@settings(max_examples=25, deadline=None)
@given(rows=worlds)
def test_models_of_sets_ignore_order_and_repetition_within_a_history(name: str, rows: list[list[int]]) -> None:
    found = scores(fitted(BASELINES[name](), interactions(rows), 8), interactions(rows))
    as_sets = interactions([sorted(set(row)) for row in rows])
    assert np.allclose(scores(fitted(BASELINES[name](), as_sets, 8), as_sets), found, atol=1e-6)


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_user_without_history_gets_finite_scores(name: str) -> None:
    found = scores(fitted(BASELINES[name](), checkerboard(8), 8), interactions([[]]))
    assert found.shape == (1, 8)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@settings(max_examples=25, deadline=None)
@given(rows=worlds, last=st.integers(1, 4), window=st.integers(1, 4), damping=st.sampled_from([0.0, 0.35, 1.0]))
def test_covisitation_is_the_plain_double_loop(rows: list[list[int]], last: int, window: int, damping: float) -> None:
    counts = [max(1, sum(row.count(item) for row in rows)) for item in range(8)]
    followers = np.zeros((8, 8))
    for row in rows:
        for place, item in enumerate(row):
            for distance, follower in enumerate(row[place + 1 : place + 1 + window], start=1):
                followers[item, follower] += 1 / distance / counts[follower] ** damping
    expected = [sum(followers[item] / rank for rank, item in enumerate(row[::-1][:last], start=1)) for row in rows]
    model = fitted(Covisitation(last=last, window=window, damping=damping), interactions(rows), 8)
    found = scores(model, interactions(rows))
    assert np.allclose(found, expected, atol=1e-5)


def test_own_history_goes_by_how_often_or_how_lately() -> None:
    history = interactions([[3, 3, 1, 2], [0]], weights=[[1, 1, 1, -1], [1]])
    often, lately = OwnHistory(decay=0.0), OwnHistory(decay=1.0)
    for model in (often, lately):
        model.fit(history, 4)
    assert scores(often, history).tolist() == [[0, 1, 0, 2], [1, 0, 0, 0]]
    assert scores(lately, history)[0] == pytest.approx([0, 1, 0, 1 / 2 + 1 / 3])
