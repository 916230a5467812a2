"""Items that are treated as if they had just come."""

from dataclasses import replace

import numpy as np
import pytest

from rec_engine.bundle import ModelBundle
from rec_engine.data.splits import temporal_split
from rec_engine.evaluation.evaluator import merge
from rec_engine.models.features import FEATURES
from rec_engine.pipeline.evaluate import TrainedModel
from rec_engine.pipeline.newcomers import World, newcomer_lesson, with_newcomers


@pytest.fixture(scope="module")
def world(bundle: ModelBundle) -> World:
    return with_newcomers(TrainedModel.of(bundle), bundle.item_tower, bundle.items, bundle.split, seed=0)


def test_nothing_is_known_of_newcomers_but_what_they_are_like(bundle: ModelBundle, world: World) -> None:
    codes, items = np.flatnonzero(world.is_new).astype(np.int32), world.inference.items
    assert len(codes) == 6
    assert not items.timeline.counts(codes, items.timeline.end).any()
    everything = np.arange(len(world.is_new), dtype=np.int32)
    for links in items.links.values():
        assert not links.between(codes, everything).any()
        assert not links.between(everything, codes).any()
    _, vectors = bundle.item_tower.encode(bundle.items[codes.tolist()])
    assert np.allclose(items.vectors[codes], vectors, atol=1e-6)
    assert not world.is_new[world.task.history.item_codes].any()


def test_whoever_took_a_newcomer_has_all_that_he_took_as_targets_but_what_he_had_met(bundle: ModelBundle) -> None:
    split = temporal_split(bundle.split.train, 0.1, 0.4)
    again = split.train.where(np.arange(len(split.train)) % 5 == 0)  # what is bought again
    split = replace(split, validation=merge(split.validation, again), repeats=True)
    world = with_newcomers(TrainedModel.of(bundle), bundle.item_tower, bundle.items, split, seed=0)
    for user in range(split.train.n_users):
        took, met = split.validation.items_of(user), split.train.items_of(user)
        first = took[world.is_new[took] & ~np.isin(took, met)]
        known = took[~world.is_new[took]]
        expected = np.sort(np.concatenate([first, known])) if len(first) else first
        assert np.array_equal(np.sort(world.task.targets.items_of(user)), expected)
    assert len(world.task.targets)


def test_what_was_taken_of_newcomers_is_what_the_lesson_says_was_taken(bundle: ModelBundle, world: World) -> None:
    lesson = newcomer_lesson(world, seed=0)
    assert lesson is not None
    taken = bundle.split.validation
    assert lesson.rows.labels.sum() == world.is_new[taken.item_codes].sum() > 0
    count = list(FEATURES).index("item_log_count")
    assert (lesson.rows.features[lesson.rows.labels > 0, count] == 0).all()
    assert lesson.user_codes.tolist() == np.unique(world.task.targets.user_codes).tolist()
    assert len(lesson.rows.sizes) == len(lesson.user_codes)
    one = lesson.of_users(lesson.user_codes[:1])
    assert len(one.sizes) == 1
    assert np.array_equal(one.features, lesson.rows.features[: one.sizes[0]], equal_nan=True)
