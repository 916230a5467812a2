"""For whom and for what a model is good: the same lists, judged on part of the targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, Interactions
from rec_engine.data.kernels import distinct_users
from rec_engine.evaluation.evaluator import Evaluation, Task, accuracy, reachable_targets
from rec_engine.evaluation.statistics import Estimate, bootstrap_mean

HISTORY_BOUNDS = (1, 5, 20, 100)
"""Histories are told apart by the least length of each group."""
FEW_USERS = 5
"""An item met by fewer users than this is cold."""
HEAD_SHARE = 0.5
"""The head: the most popular items that together make up this share of the interactions."""
MAX_CATEGORIES = 12


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of the targets.

    Attributes:
        group: what the targets are told apart by.
        name: of this part.
        is_in: (n_targets,) bool, over the reachable targets of the task.
    """

    group: str
    name: str
    is_in: BoolArray


@dataclass(frozen=True, slots=True)
class SliceScore:
    """How one model does on one slice, in recall@k of the users who have a target there."""

    group: str
    name: str
    model: str
    n_users: int
    n_targets: int
    recall: Estimate


def measure_slices(evaluations: Sequence[Evaluation], task: Task, categories: pl.Series, *, k: int) -> list[SliceScore]:
    """Return every slice that has targets, for every model; the models' lists must be of the same users."""
    n_items = len(categories)
    targets, _ = reachable_targets(task, n_items)
    targets = targets.where(np.isin(targets.user_codes, evaluations[0].user_codes))
    slices = [*_by_popularity(task, targets, n_items), *_by_history(task, targets), *_by_category(targets, categories)]
    return [
        _score(part, evaluation, targets.where(part.is_in), n_items, k)
        for part in slices
        if part.is_in.any()
        for evaluation in evaluations
    ]


def _score(part: Slice, evaluation: Evaluation, targets: Interactions, n_items: int, k: int) -> SliceScore:
    values = accuracy(evaluation.ranked, evaluation.user_codes, targets, n_items=n_items, ks=[k])[f"recall@{k}"]
    n_users = int((~np.isnan(values)).sum())
    return SliceScore(part.group, part.name, evaluation.name, n_users, len(targets), bootstrap_mean(values))


def _by_popularity(task: Task, targets: Interactions, n_items: int) -> list[Slice]:
    users = distinct_users(task.history.item_codes, task.history.starts, n_items).astype(np.int64)
    order = np.argsort(-users, kind="stable")
    before = np.cumsum(users[order]) - users[order]
    is_head = np.zeros(n_items, dtype=np.bool_)
    is_head[order] = before < HEAD_SHARE * users.sum()
    is_cold = users < FEW_USERS
    kinds = {
        "head: half of all interactions": is_head & ~is_cold,
        "tail: the other half": ~is_head & ~is_cold,
        f"cold: met by fewer than {FEW_USERS} users": is_cold,
    }
    return [Slice("popularity of the item", name, is_kind[targets.item_codes]) for name, is_kind in kinds.items()]


def _by_history(task: Task, targets: Interactions) -> list[Slice]:
    lengths = np.diff(task.history.starts)[targets.user_codes]
    ends = [*HISTORY_BOUNDS[1:], np.inf]
    return [
        Slice(
            "history of the user",
            f"{low} to {int(end) - 1} items" if np.isfinite(end) else f"{low} items and more",
            (lengths >= low) & (lengths < end),
        )
        for low, end in zip(HISTORY_BOUNDS, ends, strict=True)
    ]


def _by_category(targets: Interactions, categories: pl.Series) -> list[Slice]:
    """Return the categories with the most targets; an item of two categories counts in both."""
    of_targets = categories.gather(targets.item_codes.astype(np.uint32))
    counted = of_targets.explode().drop_nulls().alias("name").value_counts()
    names = counted.sort(["count", "name"], descending=[True, False])["name"].head(MAX_CATEGORIES)
    return [
        Slice("category of the item", name, of_targets.list.contains(name).fill_null(value=False).to_numpy())
        for name in names
    ]
