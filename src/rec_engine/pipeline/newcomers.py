"""What the re-ranker learns of items that nobody has met: some well-known ones are treated as if they had just come.

In the validation part new items are hardly ever taken, for nobody was shown them. Trees that see only that conclude
that new items are never wanted, and so would keep it that way.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, Interactions
from rec_engine.data.interactions import pairs
from rec_engine.data.splits import Split
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import Task
from rec_engine.models.item_tower import ItemTower
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.pipeline.ranking import Lesson, ranker_rows
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.serving.inference import RecommendationInference
from rec_engine.utils.logger import get_logger

NEW_SHARE = 0.1
STREAM, TAKERS_STREAM = 1, 2
"""Of random numbers: not those that a caller with the same seed draws."""
MAX_USERS = 2_000
NAME = "items that have just come"

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """The training part as it would have been if some items had come after it.

    Attributes:
        is_new: (n_items,) bool, which.
        inference: the request path in which nothing is known of them but their attributes and texts.
        task: histories without them; the targets are all that was taken by users who took any of them.
    """

    is_new: BoolArray
    inference: RecommendationInference
    task: Task


def newcomer_lesson(world: World, *, seed: int) -> Lesson | None:
    """Return requests of users who took a newcomer, drawn at random; None where no source would have offered any.

    Where a log tells what people were shown, `shown_lesson` says more: it knows who was shown a newcomer in vain.

    Args:
        world: in which some items have just come.
        seed: of the draw.
    """
    takers = np.unique(world.task.targets.user_codes)
    drawn = np.random.default_rng([seed, TAKERS_STREAM]).permutation(len(takers))[:MAX_USERS]
    takers = takers[np.sort(drawn)]
    try:
        return Lesson(NAME, ranker_rows(world.inference, world.task, takers), takers)
    except TrainingError:
        logger.info("no candidate was a newcomer that somebody took: the re-ranker learns nothing of new items")
        return None


def with_newcomers(
    model: TrainedModel, item_tower: ItemTower, items: pl.DataFrame, split: Split, *, seed: int
) -> World:
    """Return the world in which a NEW_SHARE of the items, drawn at random, have just come.

    The item tower has been trained on the texts and attributes of what only seems to be new here, so the vectors of
    these items are a little better than those of items that have truly just come.

    Args:
        model: towers and index; a ranker plays no part.
        item_tower: makes vectors of items without an id embedding, as in service.
        items: one row an item, in code order.
        split: its training part without the newcomers is known, its validation part is what was taken.
        seed: of the draw.
    """
    is_new = np.random.default_rng([seed, STREAM]).random(items.height) < NEW_SHARE
    vectors = model.index.vectors.copy()
    if is_new.any():
        _, vectors[is_new] = item_tower.encode(items.filter(pl.Series(is_new)))
    known = split.train.where(split.train.mask(lambda part: ~is_new[part.item_codes]))
    taken = _of_takers(split, is_new)
    index = FAISSIndex.build(vectors, model.index.settings, seed=seed)
    shown = split.shown.where(~is_new[split.shown.item_codes])
    inference = assemble_path(replace(model, index=index, ranker=None), known, shown)
    return World(is_new, inference, Task(f"{split.name}, newcomers", known, taken, split.repeats, shown=shown))


def _of_takers(split: Split, is_new: BoolArray) -> Interactions:
    """Return what the users took in the validation part who took a newcomer then, and have not met it before."""
    train, taken = split.train, split.validation
    met = np.zeros(len(taken), dtype=np.bool_)
    for users in train.user_blocks():
        parts = (part.of_range(users) for part in (taken, train))
        wanted, known = (pairs(part.user_codes, part.item_codes) for part in parts)
        met[taken.rows_of(users)] = np.isin(wanted, known)
    is_first = is_new[taken.item_codes] & ~met
    is_taker = np.zeros(taken.n_users, dtype=np.bool_)
    is_taker[taken.user_codes[is_first]] = True
    return taken.where(is_taker[taken.user_codes] & (is_first | ~is_new[taken.item_codes]))
