"""A re-ranker that puts what was shown and not taken further down: answers change an hour later, and not before."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import Erasure, Event, EventStore, Impression, user_hash
from rec_engine.models.features import FEATURES, OF_SHOWINGS
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.serving.answers import Answer, Answerer
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.inference import unmeasured
from rec_engine.serving.live import LiveModel
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.utils.config import CTRSettings, ServingConfig

NOW, HOUR, K = 1_700_000_000, 3_600, 5
USER = 4


@pytest.fixture(scope="module")
def weary(bundle: ModelBundle) -> ModelBundle:
    """A version whose trees know only that what was looked at in vain is not wanted."""
    rng = np.random.default_rng(0)
    looks = rng.integers(3, size=3_000)
    values = np.zeros((3_000, len(FEATURES)), dtype=np.float32)
    values[:, list(FEATURES).index(OF_SHOWINGS[1])] = np.log1p(looks)
    rows = RankerRows(values, (rng.random(3_000) < 0.5**looks).astype(np.float32), np.full(100, 30))
    return replace(bundle, ranker=CTRRanker.fit(rows, rows, CTRSettings(objective="binary"), seed=0))


@dataclass(slots=True)
class Worker:
    """One process of a service, at a moment."""

    live: LiveModel
    store: EventStore
    now: int = NOW
    n_asked: int = 0

    @classmethod
    def of(cls, bundle: ModelBundle, store: EventStore, now: int = NOW) -> "Worker":
        """Return one that has just started."""
        return cls(LiveModel(bundle, ServingConfig().recommendations, store), store, now)

    def recommend(self, config: ServingConfig, cache: InMemoryCache, **asked: object) -> Answer:
        """Return an answer."""
        self.n_asked += 1
        self.live.catch_up()
        request = RecommendRequest.model_validate({"user_id": USER, "num_recommendations": K} | asked)
        return Answerer(self.live, config, cache, lambda: self.now).recommend(request, f"r{self.n_asked}", unmeasured)

    def items(self, **asked: object) -> list[str]:
        """Return the items of an answer that was in no cache, without a trace in the log."""
        answer = self.recommend(ServingConfig.model_validate({"redis": {"cache_ttl": 0}}), InMemoryCache(), **asked)
        return [str(item) for item, *_ in json.loads(answer.shown)]

    def show(self) -> list[str]:
        """Return the items of an answer that was shown."""
        items = self.items()
        shown = json.dumps([[item, 0.5, 1.0, place] for place, item in enumerate(items, start=1)])
        self.store.write([Impression(f"{self.now}", str(USER), self.now, "v", shown, self.live.position)])
        return items


@pytest.fixture
def worker(weary: ModelBundle, store: EventStore) -> Worker:
    return Worker.of(weary, store)


@pytest.fixture
def colleague(weary: ModelBundle, store: EventStore) -> Iterator[Worker]:
    other = EventStore(store.url)
    yield Worker.of(weary, other)
    other.close()


def test_what_was_shown_gives_way_an_hour_later_on_every_worker(worker: Worker, colleague: Worker) -> None:
    first = worker.show()
    assert colleague.items() == first
    for each in (worker, colleague):
        each.now = NOW + HOUR - 1
        assert each.items() == first
    for each in (worker, colleague):
        each.now = NOW + HOUR
        assert set(each.items()).isdisjoint(first)


def test_a_click_takes_back_what_was_held_against_an_item_before_it(worker: Worker) -> None:
    first = worker.show()
    worker.now += HOUR
    worker.live.inference.repeats = True
    worker.store.write([Event("e", str(USER), first[1], "click", worker.now - 1)])
    assert first[1] in worker.items(exclude_items=first[:1])
    assert set(first[2:]).isdisjoint(worker.items())


def test_an_erased_user_begins_anew(worker: Worker, weary: ModelBundle) -> None:
    first = worker.show()
    worker.now += HOUR
    assert set(worker.items()).isdisjoint(first)
    worker.store.write([Erasure(str(USER), user_hash(USER)), Event("e", str(USER), "120", "click", worker.now)])
    anew = worker.items()
    assert len(worker.live.with_shown(worker.live.user(USER).at(worker.now), USER).shown) == 0
    assert anew == Worker.of(weary, worker.store, worker.now).items()


def test_a_log_that_fails_leaves_an_answer_that_is_not_kept(weary: ModelBundle, tmp_path: Path) -> None:
    store, cache, config = EventStore(f"sqlite:///{tmp_path / 'events.db'}"), InMemoryCache(), ServingConfig()
    worker = Worker.of(weary, store)
    first = worker.show()
    worker.now += HOUR
    worker.recommend(config, cache, user_id=6)
    user = worker.live.user(USER)
    (tmp_path / "events.db").rename(tmp_path / "away")
    state = worker.live.with_shown(user.at(worker.now), USER)
    assert len(state.shown) == 0  # what was read an hour ago, when there was nothing
    assert worker.live.is_behind
    worker.live.is_behind = False
    answer = worker.recommend(config, cache)
    assert (answer.n_items, answer.is_cached, answer.degraded) == (K, False, ("events",))
    (tmp_path / "away").rename(tmp_path / "events.db")
    healed = worker.recommend(config, cache)
    assert (healed.is_cached, healed.degraded) == (False, ())
    assert {str(item) for item, *_ in json.loads(healed.shown)}.isdisjoint(first)
    assert worker.recommend(config, cache).is_cached
    store.close()


def test_a_version_that_does_not_ask_what_was_shown_is_not_told(bundle: ModelBundle, store: EventStore) -> None:
    worker = Worker.of(bundle, store)
    assert bundle.ranker is None or not bundle.ranker.reads_showings
    worker.show()
    worker.now += HOUR
    assert len(worker.live.with_shown(worker.live.user(USER).at(worker.now), USER).shown) == 0
