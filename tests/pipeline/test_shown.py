"""What the re-ranker learns of answers that were shown: read from a real log, and nothing of the test part."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import LongArray, RecommendationDataset
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.splits import Split, temporal_split
from rec_engine.data.state import state_before
from rec_engine.data.timeline import Timeline
from rec_engine.evaluation.evaluator import NEVER, merge
from rec_engine.models.features import FEATURES, features
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.pipeline.newcomers import with_newcomers
from rec_engine.pipeline.ranking import Lesson
from rec_engine.pipeline.shown import shown_answers, shown_lesson, windows
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.utils.config import DataSettings

HOUR = 3_600
N_SHOWN = 5


@pytest.fixture(scope="module")
def path(bundle: ModelBundle) -> RecommendationInference:
    return assemble_path(TrainedModel.of(bundle), bundle.split.train)


@pytest.fixture(scope="module")
def users(bundle: ModelBundle) -> list[int]:
    return [int(user) for user in np.unique(bundle.split.validation.user_codes)]


class Log:
    """A log of answers that show to users, at moments, a given item among others."""

    def __init__(self, directory: Path, bundle: ModelBundle) -> None:
        self.store = EventStore(f"sqlite:///{directory / 'events.db'}")
        self.bundle = bundle
        self.rng = np.random.default_rng(0)
        self.n_answers = 0

    def answer(self, user: int, moment: int, item: int, *, delay: int | None = 0) -> None:
        """Show an item to a user, who clicks on it after so many seconds or not at all."""
        self.n_answers += 1
        name, slate = f"r{self.n_answers}", self.rng.permutation(len(self.bundle.item_ids))[:N_SHOWN]
        if item not in slate:
            slate[self.rng.integers(N_SHOWN)] = item
        ids = [self.bundle.item_ids[code] for code in slate.tolist()]
        user_id, item_id = str(self.bundle.user_ids[user]), str(self.bundle.item_ids[item])
        shown = json.dumps([[each, 0.0, 1.0, place] for place, each in enumerate(ids, start=1)])
        self.store.write([Impression(name, user_id, moment, "v", shown, 0)])
        if delay is not None:
            self.store.write([Event(f"e{name}", user_id, item_id, "click", moment + delay, request_id=name)])

    def lesson(self, path: RecommendationInference, dataset: RecommendationDataset, split: Split) -> Lesson | None:
        """Return what it teaches."""
        self.store.close()
        answers = shown_answers(self.store.url, dataset, split, DataSettings())
        return shown_lesson(path, answers, name="answers") if answers else None


@pytest.fixture
def log(tmp_path: Path, bundle: ModelBundle) -> Log:
    return Log(tmp_path, bundle)


def ends(split: Split) -> LongArray:
    return split.train.last_times(NEVER)


def taken(split: Split, user: int) -> int:
    return int(split.validation.items_of(user)[0])


def test_answers_between_the_parts_teach_with_their_positions_and_clicks(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference, users: list[int], log: Log
) -> None:
    for user in users * 3:
        log.answer(user, int(ends(bundle.split)[user]) + HOUR, taken(bundle.split, user))
    lesson = log.lesson(path, dataset, bundle.split)
    assert lesson is not None
    rows = lesson.rows
    assert rows.positions is not None
    assert set(rows.positions.tolist()) == {1, 2, 3, 4, 5}
    assert len(rows.sizes) == len(lesson.user_codes) == 3 * len(users)
    assert lesson.user_codes.tolist() == users * 3
    assert rows.labels.sum() == len(rows.sizes)  # forty items: each taken one is a candidate


def early(_: Split, begins: int, __: int) -> int:
    return begins


def late(_: Split, __: int, last: int) -> int:
    return last + 1


@pytest.mark.parametrize("moment", [early, late])
def test_answers_outside_the_validation_part_teach_nothing(  # noqa: PLR0917 - fixtures
    bundle: ModelBundle,
    dataset: RecommendationDataset,
    path: RecommendationInference,
    users: list[int],
    log: Log,
    moment: Callable[[Split, int, int], int],
) -> None:
    split = bundle.split
    begins, last = ends(split), split.validation.last_times(NEVER)
    for user in users * 3:
        log.answer(user, moment(split, int(begins[user]), int(last[user])), taken(split, user))
    assert log.lesson(path, dataset, split) is None


def test_a_click_after_the_validation_part_and_an_item_of_the_test_part_teach_nothing(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference, users: list[int], log: Log
) -> None:
    split = bundle.split
    last = split.validation.last_times(NEVER)
    for user in users * 3:
        log.answer(user, int(last[user]), int(split.test.items_of(user)[0]), delay=0)  # a click in time, even
        log.answer(user, int(last[user]), taken(split, user), delay=1)
        log.answer(user, int(last[user]) - 1, taken(split, user), delay=1)
    lesson = log.lesson(path, dataset, split)
    assert lesson is not None
    assert lesson.rows.labels.sum() == 3 * len(users)
    # One of five was left out of each answer that showed the test item, which others may do by chance.
    assert (lesson.rows.sizes[::3] <= N_SHOWN - 1).all()


def test_a_few_clicks_teach_nothing(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference, users: list[int], log: Log
) -> None:
    for user in users:
        log.answer(user, int(ends(bundle.split)[user]) + HOUR, taken(bundle.split, user))
    assert log.lesson(path, dataset, bundle.split) is None


def test_features_are_those_of_the_moment_of_the_answer(
    bundle: ModelBundle, dataset: RecommendationDataset, path: RecommendationInference, users: list[int], log: Log
) -> None:
    split, moments = bundle.split, ends(bundle.split) + HOUR
    for user in users * 3:
        log.answer(user, int(moments[user]), taken(split, user))
    lesson = log.lesson(path, dataset, split)
    assert lesson is not None
    user = int(lesson.user_codes[0])
    state = state_before(merge(split.train, split.validation), user, int(moments[user]))
    assert np.array_equal(state.item_codes, split.train.items_of(user))
    known = merge(split.train, split.validation)
    timeline = Timeline(known, len(bundle.item_ids), until=int(moments.max()))
    items = replace(path.items, timeline=timeline)  # what others took since the training is known by then
    expected = features(state, path.recommend(Query(state, k=5)).candidates, items)
    assert not np.array_equal(expected, features(state, path.recommend(Query(state, k=5)).candidates, path.items))
    n_rows = lesson.rows.sizes[0]
    assert n_rows >= 2  # what the user has met already is no candidate
    for row in lesson.rows.features[:n_rows]:
        assert any(np.array_equal(row, other, equal_nan=True) for other in expected)


def test_what_only_some_items_teach_are_their_rows_as_if_nobody_had_met_them(
    bundle: ModelBundle, dataset: RecommendationDataset, users: list[int], log: Log
) -> None:
    split = bundle.split
    for user in users * 3:
        log.answer(user, int(ends(split)[user]) + HOUR, taken(split, user))
    log.store.close()
    answers = shown_answers(log.store.url, dataset, split, DataSettings())
    assert answers is not None
    world = with_newcomers(TrainedModel.of(bundle), bundle.item_tower, bundle.items, split, seed=0)
    fresh = answers.without(world.is_new)
    lesson = shown_lesson(world.inference, fresh, world.is_new, name="newcomers")
    assert lesson is not None
    is_one = world.is_new[answers.item_codes]
    answers_of_rows = np.repeat(np.arange(len(answers.user_codes)), np.diff(answers.starts))
    assert lesson.user_codes.tolist() == answers.user_codes[np.unique(answers_of_rows[is_one])].tolist()
    assert lesson.rows.sizes.sum() == is_one.sum() > 0  # of newcomers nothing has been met: each is a candidate
    assert lesson.rows.labels.sum() == answers.clicked[is_one].sum() > 0
    for name in ("item_log_count", "user_log_item_count", "user_log_item_shown"):
        assert not lesson.rows.features[:, FEATURES.index(name)].any()
    assert not world.is_new[fresh.known.item_codes].any()
    none = np.zeros(len(bundle.item_ids), dtype=np.bool_)
    assert shown_lesson(world.inference, answers.without(none), none, name="nothing") is None
    for answer in range(len(answers.user_codes)):
        before, after = answers.state(answer).item_codes, fresh.state(answer).item_codes
        assert after.tolist() == before[~world.is_new[before]].tolist()


def test_where_the_parts_follow_each_other_in_time_their_bounds_are_everybodys(dataset: RecommendationDataset) -> None:
    split = temporal_split(dataset.interactions)
    found = windows(split, dataset)
    assert found["begins"].unique().to_list() == [split.train.timestamps.max()]
    assert found["ends"].unique().to_list() == [split.validation.timestamps.max()]
    assert len(found) == np.count_nonzero(split.train.last_times(NEVER) != NEVER)


def test_where_everybody_has_his_own_parts_he_has_his_own_bounds(
    bundle: ModelBundle, dataset: RecommendationDataset
) -> None:
    split = bundle.split
    first = split.validation.user_codes[0]
    fewer = replace(split, validation=split.validation.where(split.validation.user_codes != first))
    found = windows(fewer, dataset)
    assert len(found) == len(np.unique(split.validation.user_codes)) - 1
    assert str(bundle.user_ids[int(first)]) not in found["user_id"].to_list()
    last = split.validation.last_times(NEVER)
    codes = dataset.user_ids.codes(found["user_id"].to_list())
    assert found["ends"].to_list() == last[codes].tolist()
    none = replace(split, validation=split.validation.where(np.zeros(len(split.validation), dtype=np.bool_)))
    assert windows(none, dataset).is_empty()
    assert found.schema == {"user_id": pl.String, "begins": pl.Int64, "ends": pl.Int64}
