"""What is worked out for some users at a time is what it is for all of them at once."""

import math
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rec_engine.data.dataset import IntArray, Interactions, RecommendationDataset
from rec_engine.data.interactions import stacked
from rec_engine.data.profile import profile
from rec_engine.data.scratch import scratch_array
from rec_engine.data.splits import Split, leave_one_out, random_split, temporal_split
from rec_engine.data.timeline import Timeline
from rec_engine.evaluation.evaluator import Task, evaluate, merge, some_users, validation_task
from rec_engine.evaluation.leaks import check_split
from rec_engine.models.baselines import BASELINES, EASE, Baseline, OwnHistory, Popularity, RecentPopularity, followers
from rec_engine.models.batches import windows
from rec_engine.models.next_item import NegativeSampler

N_ITEMS = 12


def world() -> RecommendationDataset:
    rng = np.random.default_rng(0)
    n = 400
    events = rng.choice(["view", "purchase", "dislike"], n)
    return RecommendationDataset(
        pl.DataFrame(
            {
                "user_id": (30 * rng.random(n) ** 2).astype(np.int64),
                "item_id": rng.permutation(np.arange(n) % N_ITEMS),
                "timestamp": rng.integers(0, 300, n),
                "event": events,
            }
        )
    )


def ease(split: Split) -> object:
    model = EASE(5)
    model.fit(split.train, N_ITEMS)
    return model.weights


def recent(split: Split) -> object:
    model = RecentPopularity(0.001)
    model.fit(split.train, N_ITEMS)
    return model.popularity


FOUND: dict[str, Callable[[Split], object]] = {
    "split": lambda split: split.fingerprint,
    "merged": lambda split: merge(split.train, split.validation).timestamps,
    "pause": lambda split: windows(split.train, 5).common_pause(0.9),
    "timeline": lambda split: Timeline(split.train, N_ITEMS).counts(np.arange(N_ITEMS, dtype=np.int32), 200),
    "followers": lambda split: followers(split.train, N_ITEMS, np.array([1, 0.5, 0.25], dtype=np.float32)).toarray(),
    "ease": ease,
    "recent": recent,
    "negatives": lambda split: NegativeSampler(split.train, N_ITEMS, 2).probability,
    "leaks": lambda split: [check.detail for check in check_split(split)],
    "requests": lambda split: validation_task(split).request_times(),
}


@pytest.mark.parametrize("name", FOUND)
def test_small_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = FOUND[name](temporal_split(world().interactions))
    for module in ("scratch", "interactions"):
        monkeypatch.setattr(f"rec_engine.data.{module}.BLOCK_ROWS", 7)
    found = FOUND[name](temporal_split(world().interactions))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("kind", [*BASELINES.values(), OwnHistory])
def test_what_is_fitted_leaves_the_interactions_as_they_are(kind: type[Baseline]) -> None:
    past = world().interactions.positive()
    before = [getattr(past, name).copy() for name in Interactions.__slots__]
    model = kind()
    model.fit(past, N_ITEMS)
    model.scorer(past)(np.arange(past.n_users, dtype=np.int32))
    for name, array in zip(Interactions.__slots__, before, strict=True):
        np.testing.assert_array_equal(getattr(past, name), array)


def test_the_common_pause_is_the_quantile_of_all_pauses() -> None:
    past = world().interactions
    pauses = np.diff(past.timestamps)[np.diff(past.user_codes) == 0]
    for share in (0.0, 0.5, 0.9, 0.999, 1.0):
        assert windows(past, 5).common_pause(share) == np.sort(pauses)[math.ceil((len(pauses) - 1) * share)]


def test_density_is_of_distinct_pairs() -> None:
    dataset = world()
    pairs = set(zip(dataset.interactions.user_codes.tolist(), dataset.interactions.item_codes.tolist(), strict=True))
    assert profile(dataset).density == len(pairs) / (dataset.n_users * N_ITEMS)


def large_past(scratch: Path, n: int) -> Interactions:
    """Return a past on disk, n rows of one user in a thousand rows each."""
    past = Interactions(
        item_codes=(np.arange(n) % N_ITEMS).astype(np.int32),
        timestamps=np.arange(n, dtype=np.int64),
        events=np.zeros(n, dtype=np.uint8),
        values=np.zeros(n, dtype=np.float32),
        weights=np.where(np.arange(n) % 3, 1, -1).astype(np.float32),
        starts=np.arange(0, n + 1, 1_000),
    )
    return stacked([past], n, partial(scratch_array, scratch))


LARGE: dict[str, Callable[[Interactions], object]] = {
    "leave one out": leave_one_out,
    "temporal": temporal_split,
    "random": random_split,
    "fingerprint": lambda past: leave_one_out(past).fingerprint,
    "positive": Interactions.positive,
    "users": lambda past: past.user_codes,
    "counts": lambda past: NegativeSampler(past, N_ITEMS, 2),
    "merged": lambda past: merge(past, past),
    "pause": lambda past: windows(past, 500).common_pause(0.9),
    "timeline": lambda past: Timeline(past, N_ITEMS),
    "evaluation": lambda past: evaluate("none", nothing, few_asked(past), n_items=N_ITEMS),
    "followers": lambda past: followers(past, N_ITEMS, np.ones(2, dtype=np.float32)),
    "popularity": lambda past: [kind().fit(past, N_ITEMS) for kind in (Popularity, RecentPopularity, EASE)],
}


def few_asked(past: Interactions) -> Task:
    return some_users(validation_task(leave_one_out(past)), 3, seed=0)


def nothing(user_codes: IntArray, k: int) -> IntArray:
    return np.full((len(user_codes), k), -1, dtype=np.int32)


@pytest.mark.parametrize("name", LARGE)
def test_what_is_on_disk_is_never_in_memory_as_a_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 200_000
    monkeypatch.setattr("rec_engine.data.ranks.BINS", 2**8)
    for module in ("scratch", "interactions"):
        monkeypatch.setattr(f"rec_engine.data.{module}.BLOCK_ROWS", 2_000)
    past = large_past(tmp_path, n)
    LARGE[name](past.of_range(slice(0, 2)))  # what is loaded or compiled once does not count
    tracemalloc.start()
    LARGE[name](past)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * n  # bytes, of which the arrays have 21 a row
