"""Parts of the targets, judged alone."""

import numpy as np
import polars as pl
import pytest
from worlds import interactions

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.evaluation.evaluator import Evaluation, Task, evaluate, rank_by_score
from rec_engine.evaluation.slices import SliceScore, measure_slices

# Item 0 is the most popular by far, 1 to 5 are met now and then, 8 and 9 never.
HISTORY = interactions([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 1], [0, 2], [3, 4, 5, 1, 2]])
TARGETS = interactions([[9], [1, 8], [4], [5], [1], [4], [5], [0]])
CATEGORIES = pl.Series([["pop"], *[["art"]] * 5, None, None, ["new", "art"], ["new"]], dtype=pl.List(pl.String))
TASK = Task("eight users", HISTORY, TARGETS)


def of(name: str, scores: FloatArray) -> Evaluation:
    def score(users: IntArray) -> FloatArray:
        return np.tile(scores, (len(users), 1))

    return evaluate(name, rank_by_score(score, HISTORY), TASK, n_items=10, ks=(3,))


def scores(k: int = 3) -> dict[tuple[str, str, str], SliceScore]:
    upwards, downwards = np.arange(10, dtype=np.float32), -np.arange(10, dtype=np.float32)
    found = measure_slices([of("new first", upwards), of("old first", downwards)], TASK, CATEGORIES, k=k)
    return {(score.group, score.name.partition(":")[0], score.model): score for score in found}


def test_popularity_and_history_each_hold_every_target_once() -> None:
    found = scores()
    for group in ("popularity of the item", "history of the user"):
        parts = [score for (of_group, _, model), score in found.items() if of_group == group and model == "new first"]
        assert sum(part.n_targets for part in parts) == len(TARGETS)


def test_each_part_is_judged_by_its_own_targets() -> None:
    found = scores()
    new = ("category of the item", "new")
    assert found[*new, "new first"].recall.mean == 1
    assert found[*new, "old first"].recall.mean == 0
    assert found["popularity of the item", "cold", "new first"].n_targets == len(TARGETS) - 1
    assert found["category of the item", "pop", "old first"].recall.mean == 1
    assert found["category of the item", "pop", "new first"].recall.mean == 0
    assert found["history of the user", "5 to 19 items", "old first"].n_users == 1


def test_an_item_of_two_categories_counts_in_both() -> None:
    found = scores()
    assert found["category of the item", "new", "new first"].n_targets == 2
    assert found["category of the item", "art", "new first"].n_targets == 7


def test_a_slice_of_everything_is_the_whole() -> None:
    everything = pl.Series([["all"]] * 10)
    model = of("new first", np.arange(10, dtype=np.float32))
    whole = [score for score in measure_slices([model], TASK, everything, k=3) if score.name == "all"]
    assert whole[0].recall.mean == pytest.approx(model.mean("recall@3"))
