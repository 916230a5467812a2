"""Baselines on worlds whose answer is known, and against dense references of their formulas."""

import numpy as np
import pytest
from worlds import checkerboard, interactions

from rec_engine.data.dataset import FloatArray, Interactions
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import rank_by_score
from rec_engine.models.baselines import BASELINES, EASE, Baseline, Covisitation, ItemKNN, Popularity, RecentPopularity

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
    model = fitted(Covisitation(last=2, window=2), interactions([[0, 1, 2]]), 3)
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


def test_itemknn_keeps_the_nearest_neighbours_only() -> None:
    model = ItemKNN(neighbours=2, shrink=0)
    model.fit(checkerboard(12), 12)
    assert np.diff(model.similarity.indptr).max() == 2


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
    with pytest.raises(TrainingError, match="GB"):
        EASE().fit(checkerboard(4), 30_000)
