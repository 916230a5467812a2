"""One task for two versions of which the later one knows a longer log: by what neither has learned from."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, Interactions
from rec_engine.errors import DataError
from rec_engine.evaluation.evaluator import Task
from rec_engine.evaluation.exposures import Exposures, exposures_of
from rec_engine.pipeline.evaluate import TrainedModel, reported_task
from rec_engine.retrieval.faiss_index import FAISSIndex

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class CommonTask:
    """What two versions can be judged by.

    Attributes:
        task: in the codes of the candidate: its histories up to what it holds out, and of that what the current version
            has not learned from.
        is_asked: (n,) bool, which of what it holds out that is.
        current: the current version in these codes. It reads these histories, and items that came after its training
            have the vectors that its item tower makes of their descriptions, as in service. Links and popularity are
            counted from these histories for both, for they are not learned.
        n_learned: held-out interactions that are left out, as the current version has learned from them.
        n_new_items: that came after the training of the current version.
        exposures: what the users could have taken; None where no log tells it.
    """

    task: Task
    is_asked: BoolArray
    current: TrainedModel
    n_learned: int
    n_new_items: int
    exposures: Exposures | None


def common_task(candidate: ModelBundle, current: ModelBundle, task: Task | None = None) -> CommonTask:
    """Return what two versions can be judged by; users and items are the same where their ids are.

    A current version whose tower reads the ids of users is not asked for users whom it does not know.

    Args:
        candidate: the version in whose codes it is.
        current: the other one.
        task: what the candidate is to be judged by; without it what it holds out.

    Raises:
        DataError: if they have no user or no item in common, or differ in whether items may come again.
    """
    if candidate.repeats != current.repeats:
        raise DataError(
            f"{candidate.version} and {current.version} differ in whether items may come again",
            hint="only models with the same data.repeat_items can be compared; promote --force does without",
        )
    users = current.user_ids.codes(candidate.user_ids.ids.to_list())
    items = current.item_ids.codes(candidate.item_ids.ids.to_list())
    if (users == UNKNOWN).all() or (items == UNKNOWN).all():
        raise DataError(
            f"{candidate.version} was trained on other data than {current.version}: they have no user or no item in "
            "common",
            hint="only models of one shop can be compared; promote --force does without",
        )
    task = task or reported_task(candidate.split)
    is_learned = _are_learned(task.targets, candidate, current)
    is_asked = ~is_learned
    if len(current.user_tower.user_inputs):
        is_asked &= users[task.targets.user_codes] != UNKNOWN
    return CommonTask(
        task=replace(task, targets=task.targets.where(is_asked)),
        is_asked=is_asked,
        current=_recoded(current, candidate.items, users, items),
        n_learned=int(is_learned.sum()),
        n_new_items=int((items == UNKNOWN).sum()),
        exposures=exposures_of(task),
    )


def _are_learned(targets: Interactions, candidate: ModelBundle, current: ModelBundle) -> BoolArray:
    """Return (n,) bool: which targets towers, links or re-ranker of the current version were fitted to."""
    known = (current.split.train, current.split.validation)
    users = candidate.user_ids.codes(current.user_ids.ids.to_list())
    items = candidate.item_ids.codes(current.item_ids.ids.to_list())
    learned = pl.concat([_rows(part, users[part.user_codes], items[part.item_codes]) for part in known]).unique()
    wanted = _rows(targets, targets.user_codes, targets.item_codes).with_row_index("row")
    found = wanted.join(learned, on=learned.columns, how="semi")["row"].to_numpy()
    is_learned = np.zeros(len(targets), dtype=np.bool_)
    is_learned[found] = True
    return is_learned


def _rows(part: Interactions, user_codes: IntArray, item_codes: IntArray) -> pl.DataFrame:
    return pl.DataFrame({"user": user_codes, "item": item_codes, "timestamp": part.timestamps})


def _recoded(bundle: ModelBundle, table: pl.DataFrame, users: IntArray, items: IntArray) -> TrainedModel:
    """Return a version in other codes.

    Args:
        bundle: the version.
        table: one row an item, in the order of the other codes.
        users: (n_users,) int32, for each of the other codes its own, UNKNOWN for users whom it does not know.
        items: (n_items,) int32, the same of items.
    """
    tower, model = bundle.user_tower, TrainedModel.of(bundle)
    inputs, index = tower.item_inputs, bundle.index
    if not np.array_equal(items, np.arange(len(inputs))):
        inputs, vectors = _gathered(inputs, items), _gathered(index.vectors, items)
        is_new = items == UNKNOWN
        if is_new.any():
            inputs[is_new], encoded = bundle.item_tower.encode(table.filter(pl.Series(is_new)))
            vectors[is_new] = np.nan_to_num(encoded, posinf=0.0, neginf=0.0)
        index = FAISSIndex.build(vectors, index.settings, seed=bundle.config.training.seed)
    if len(tower.user_inputs):
        tower = replace(tower, user_inputs=_gathered(tower.user_inputs, users))
    tower = replace(tower, item_inputs=inputs, user_features=_gathered(tower.user_features, users))
    return replace(model, tower=tower, index=index, categories=table["categories"])


def _gathered(rows: FloatArray, codes: IntArray) -> FloatArray:
    """Return a row of (n, width) for each code, zeros for UNKNOWN."""
    gathered = rows[codes]
    gathered[codes == UNKNOWN] = 0
    return gathered
