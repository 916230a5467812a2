"""What the re-ranker learns of answers that were shown."""

import numpy as np
import polars as pl
import pytest

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.impressions import Impressions
from rec_engine.data.state import state_before
from rec_engine.evaluation.evaluator import merge
from rec_engine.models.features import features
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.pipeline.ranking import Lesson
from rec_engine.pipeline.shown import shown_lesson
from rec_engine.serving.inference import Query, RecommendationInference

HOUR = 3_600


@pytest.fixture(scope="module")
def path(bundle: ModelBundle) -> RecommendationInference:
    return assemble_path(TrainedModel.of(bundle), bundle.split.train)


def answers(bundle: ModelBundle, moments: np.ndarray, users: np.ndarray, n_shown: int = 5) -> Impressions:
    """Return answers to users at moments: each shows what the user took next and, below and above, other items."""
    taken = [bundle.split.validation.items_of(user) for user in users.tolist()]
    rng = np.random.default_rng(0)
    shown, clicked = [], []
    for items in taken:
        slate = np.setdiff1d(rng.permutation(len(bundle.item_ids))[: n_shown + 1], items[:1])[:n_shown]
        slate[rng.integers(n_shown)] = items[0]
        shown.append(slate)
        clicked.append(slate == items[0])
    n = len(users)
    return Impressions(
        request_ids=pl.Series([f"r{place}" for place in range(n)]),
        user_ids=pl.Series([str(bundle.user_ids[user]) for user in users.tolist()], dtype=pl.String),
        model_versions=pl.Series(["v"] * n),
        timestamps=moments,
        request_codes=np.repeat(np.arange(n, dtype=np.int32), n_shown),
        item_ids=pl.Series([str(bundle.item_ids[code]) for code in np.concatenate(shown).tolist()]),
        positions=np.tile(np.arange(1, n_shown + 1, dtype=np.int32), n),
        scores=np.zeros(n * n_shown, dtype=np.float32),
        propensities=np.ones(n * n_shown, dtype=np.float32),
        clicked=np.concatenate(clicked),
    )


def lesson_at(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference, offset: int, n_times: int = 3
) -> Lesson | None:
    """Return what answers teach that came so many seconds after each user's last training interaction."""
    users = np.unique(bundle.split.validation.user_codes)
    ends = bundle.split.train.timestamps[bundle.split.train.starts[users + 1] - 1]
    moments, users = np.repeat(ends + offset, n_times), np.repeat(users, n_times)
    return shown_lesson(path, answers(bundle, moments, users), dataset, bundle.split)


def test_answers_between_the_parts_teach_with_their_positions_and_clicks(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference
) -> None:
    lesson = lesson_at(bundle, dataset, path, HOUR)
    assert lesson is not None
    rows = lesson.rows
    assert rows.positions is not None
    assert set(rows.positions.tolist()) == {1, 2, 3, 4, 5}
    assert len(rows.sizes) == len(lesson.user_codes)
    assert rows.labels.sum() == len(rows.sizes)  # forty items: each taken one is a candidate


def test_answers_that_came_too_early_or_too_late_teach_nothing(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference
) -> None:
    assert lesson_at(bundle, dataset, path, 0) is None
    assert lesson_at(bundle, dataset, path, 1_000 * 86_400) is None


def test_a_few_clicks_teach_nothing(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference
) -> None:
    assert lesson_at(bundle, dataset, path, HOUR, n_times=1) is None


def test_features_are_those_of_the_moment_of_the_answer(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference
) -> None:
    lesson = lesson_at(bundle, dataset, path, HOUR)
    assert lesson is not None
    user = int(lesson.user_codes[0])
    known = merge(bundle.split.train, bundle.split.validation)
    state = state_before(
        known, user, int(bundle.split.train.timestamps[bundle.split.train.starts[user + 1] - 1]) + HOUR
    )
    assert np.array_equal(state.item_codes, bundle.split.train.items_of(user))
    candidates = path.recommend(Query(state, k=5)).candidates
    expected = features(state, candidates, path.items)
    for row in lesson.rows.features[: lesson.rows.sizes[0]]:
        assert any(np.array_equal(row, other, equal_nan=True) for other in expected)
