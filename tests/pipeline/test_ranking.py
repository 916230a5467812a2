"""What the re-ranker is taught, by whom, and what it is not."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import BoolArray, IntArray
from rec_engine.data.showings import ShowingLog
from rec_engine.data.splits import Split
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.evaluation.exposures import exposures_of
from rec_engine.models.features import FEATURES
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.pipeline import ranking
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.pipeline.ranking import (
    NEGATIVES,
    Lesson,
    fit_ranker,
    fit_to_clicks,
    joined,
    ranker_rows,
    with_few_negatives,
)
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.serving.inference import RecommendationInference
from rec_engine.utils.config import CTRSettings


def rows_of(sizes: list[int], taken: list[int], positions: list[int] | None = None) -> RankerRows:
    """Return requests whose rows are told apart by their first feature, in which the first ones were taken."""
    n = sum(sizes)
    features = np.zeros((n, len(FEATURES)), dtype=np.float32)
    features[:, 0] = np.arange(n)
    labels = np.concatenate([np.arange(size) < count for size, count in zip(sizes, taken, strict=True)])
    shown = None if positions is None else np.array(positions, dtype=np.int32)
    return RankerRows(features, labels.astype(np.float32), np.array(sizes), shown)


@given(
    requests=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 4)), min_size=1, max_size=8), seed=st.integers(0)
)
def test_all_that_was_taken_stays_with_so_many_others_for_each(requests: list[tuple[int, int]], seed: int) -> None:
    sizes, taken = [size for size, _ in requests], [min(size, count) for size, count in requests]
    kept = with_few_negatives(rows_of(sizes, taken), seed % 2**32)
    expected = [min(size, count * (1 + NEGATIVES)) for size, count in zip(sizes, taken, strict=True) if count]
    assert kept.sizes.tolist() == expected
    assert kept.labels.sum() == sum(taken)
    assert (np.diff(kept.features[:, 0]) > 0).all()


def test_answers_that_were_shown_stay_whole() -> None:
    shown = rows_of([3, 3], [0, 1], positions=[1, 2, 3, 1, 2, 3])
    kept = with_few_negatives(joined([rows_of([4, 4], [0, 1]), shown]), seed=0)
    assert kept.sizes.tolist() == [4, 3, 3]
    assert kept.positions is not None
    assert kept.positions.tolist() == [0, 0, 0, 0, 1, 2, 3, 1, 2, 3]


def test_the_lesson_of_some_users_is_their_requests_alone() -> None:
    lesson = Lesson("any", rows_of([2, 1, 3], [1, 0, 1]), np.array([5, 7, 5], dtype=np.int32))
    assert lesson.of_users(np.array([5])).features[:, 0].tolist() == [0, 1, 3, 4, 5]
    assert lesson.of_users(np.array([7])).sizes.tolist() == [1]


@pytest.fixture(scope="module")
def blind_path(bundle: ModelBundle) -> RecommendationInference:
    """The request path whose towers know nothing, so that there is something to win."""
    model = TrainedModel.of(bundle)
    vectors = np.random.default_rng(0).permutation(model.index.vectors)
    index = FAISSIndex.build(vectors, model.index.settings)
    return assemble_path(replace(model, index=index, ranker=None), bundle.split.train)


def is_learning(bundle: ModelBundle, seed: int) -> BoolArray:
    """Return (n_users,) whether the user neither chooses nor judges."""
    users = np.unique(bundle.split.validation.user_codes)
    drawn = np.random.default_rng(seed).permutation(users)
    learning = np.ones(bundle.split.train.n_users, dtype=np.bool_)
    learning[drawn[: 2 * int(len(users) * ranking.JUDGING_SHARE)]] = False
    return learning


def test_a_lesson_is_kept_unless_it_costs_the_others_too_much(
    bundle: ModelBundle, blind_path: RecommendationInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(ctr={"objective": "binary"})
    taught = list[RankerRows]()

    def noted(rows: RankerRows, seed: int) -> RankerRows:
        taught.append(rows)
        return with_few_negatives(rows, seed)

    monkeypatch.setattr(ranking, "with_few_negatives", noted)
    users = np.arange(bundle.split.train.n_users, dtype=np.int32)
    rows = ranker_rows(blind_path, validation_task(bundle.split), users)
    wrong = Lesson("wrong", replace(rows, labels=1 - rows.labels), users)
    right = Lesson("right", rows, users)
    ranker = fit_ranker(blind_path, bundle.split, config, [wrong, right])
    assert isinstance(ranker, CTRRanker)
    n_learning = int(is_learning(bundle, config.training.seed).sum())
    # Of the requests alone, with the wrong lesson, with the right one, and in the end of everybody.
    assert [len(each.sizes) for each in taught] == [n_learning, 2 * n_learning, 2 * n_learning, 2 * len(users)]
    assert taught[-1].labels.sum() == 2 * rows.labels.sum()


def shown_beside_the_targets(split: Split) -> Split:
    """Return a split whose log showed each user his targets and three items more when he took them."""
    rng, targets = np.random.default_rng(0), split.validation
    rows = [
        {"user": user, "item": item, "position": 1, "timestamp": moment}
        for user, target, moment in zip(
            targets.user_codes.tolist(), targets.item_codes.tolist(), targets.timestamps.tolist(), strict=True
        )
        for item in {target, *rng.permutation(40)[:3].tolist()}
    ]
    return replace(split, shown=ShowingLog.from_impressions(pl.DataFrame(rows), targets.n_users))


def shown_answers(rows: RankerRows, users: IntArray) -> Lesson:
    """Return for each request an answer of five in random order: what was taken, and the first candidates else."""
    rng, starts, chosen = np.random.default_rng(0), np.cumsum(rows.sizes) - rows.sizes, list[int]()
    for start, size in zip(starts.tolist(), rows.sizes.tolist(), strict=True):
        taken_first = np.argsort(-rows.labels[start : start + size], kind="stable")[:5]
        chosen += (start + rng.permutation(taken_first)).tolist()
    sizes, positions = np.full(len(rows.sizes), 5), np.tile(np.arange(1, 6, dtype=np.int32), len(rows.sizes))
    return Lesson("shown", RankerRows(rows.features[chosen], rows.labels[chosen], sizes, positions), users)


def test_what_was_shown_teaches_alone_and_chooses_by_its_clicks(
    bundle: ModelBundle, blind_path: RecommendationInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, fitted = shown_beside_the_targets(bundle.split), list[tuple[RankerRows, RankerRows]]()
    fit = CTRRanker.fit

    def noted(train: RankerRows, validation: RankerRows, settings: CTRSettings, *, seed: int) -> CTRRanker:
        fitted.append((train, validation))
        return fit(train, validation, settings, seed=seed)

    monkeypatch.setattr(CTRRanker, "fit", noted)
    users = np.arange(split.train.n_users, dtype=np.int32)
    lesson = shown_answers(ranker_rows(blind_path, validation_task(split), users), users)
    exposures = exposures_of(validation_task(split))
    assert exposures is not None
    ranker = fit_to_clicks(blind_path, split, tiny_config(), [lesson, lesson], exposures)
    ((train, validation),) = fitted
    n_apart = int(len(users) * ranking.CHOOSING_SHARE)
    assert len(train.sizes) == 2 * (len(users) - 2 * n_apart)
    assert len(validation.sizes) == 2 * n_apart
    assert validation.positions is not None
    assert {*train.sizes.tolist(), *validation.sizes.tolist()} == {5}
    assert isinstance(ranker, CTRRanker)
    assert ranker.objective == "binary"
    assert blind_path.ranker is None


def test_of_too_few_users_nothing_is_learned(bundle: ModelBundle, blind_path: RecommendationInference) -> None:
    users = np.arange(20, dtype=np.int32)
    lesson = shown_answers(ranker_rows(blind_path, validation_task(bundle.split), users), users)
    exposures = exposures_of(validation_task(shown_beside_the_targets(bundle.split)))
    assert exposures is not None
    with pytest.raises(TrainingError, match="20 users are too few"):
        fit_to_clicks(blind_path, bundle.split, tiny_config(), [lesson], exposures)
