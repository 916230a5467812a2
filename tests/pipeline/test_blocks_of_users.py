"""What is worked out for some users at a time is what it is for all of them at once."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from rec_engine.data.dataset import Interactions, RecommendationDataset
from rec_engine.data.profile import profile
from rec_engine.data.splits import Split, temporal_split
from rec_engine.data.timeline import Timeline
from rec_engine.evaluation.evaluator import merge, validation_task
from rec_engine.evaluation.leaks import check_split
from rec_engine.models.baselines import BASELINES, EASE, Baseline, OwnHistory, RecentPopularity, followers
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
