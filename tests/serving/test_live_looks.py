"""How often items are looked at and taken, as the service has it: what training would say at the same moment."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import interactions_frame, items_frame

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import FloatArray, RecommendationDataset
from rec_engine.data.events import Erasure, Event, EventStore, Impression, ItemChange, user_hash
from rec_engine.data.item_looks import NO_LOOKS, ItemLooks
from rec_engine.data.log_tables import with_log
from rec_engine.data.pruning import prune
from rec_engine.data.showing_log import load_showings
from rec_engine.data.take_rates import TakeRates
from rec_engine.data.timeline import Timeline
from rec_engine.data.validation import accepted_tables
from rec_engine.models.features import FEATURES, OF_LOOKS
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.serving import live_looks
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.utils.config import CTRSettings, DataSettings, RecommendationSettings

NOW, HOUR, DAY = 1_700_000_000, 3_600, 86_400
ITEMS = [100 + code for code in range(40)]


@pytest.fixture(scope="module")
def curious(bundle: ModelBundle) -> ModelBundle:
    """A version whose trees know only that what is taken often is wanted."""
    rng = np.random.default_rng(0)
    rates = rng.integers(-2, 3, size=3_000)
    values = np.zeros((3_000, len(FEATURES)), dtype=np.float32)
    values[:, list(FEATURES).index(OF_LOOKS[1])] = rates
    rows = RankerRows(values, (rng.random(3_000) < 0.5 ** (2 - rates)).astype(np.float32), np.full(100, 30))
    return replace(bundle, ranker=CTRRanker.fit(rows, rows, CTRSettings(objective="binary"), seed=0))


@pytest.fixture(autouse=True)
def _short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_looks, "ANSWERS_AT_ONCE", 7)
    monkeypatch.setattr(live_looks, "LATE_ANSWERS", 3)


@dataclass(slots=True)
class Worker:
    """One process of a service that follows a log."""

    live: LiveModel
    statistics: LiveStatistics

    @classmethod
    def of(cls, bundle: ModelBundle, store: EventStore) -> "Worker":
        """Return one that has just started."""
        live = LiveModel(bundle, RecommendationSettings(), store)
        return cls(live, LiveStatistics(live, store))

    def rates(self, now: int) -> FloatArray:
        """Return (n_items, 2) what the features say of ITEMS."""
        codes = np.array([self.live.catalogue.code(item) for item in ITEMS], dtype=np.int32)
        return of_items(self.live.inference.items.rates, codes, now)

    def looks(self) -> float:
        """Return how often anything was looked at."""
        self.statistics.refresh()
        return float(self.live.knowledge.looks.looks.sum())


def of_items(rates: TakeRates | None, codes: "np.ndarray[tuple[int], np.dtype[np.int32]]", now: int) -> FloatArray:
    columns = np.zeros((2, len(codes)), dtype=np.float32)
    if rates is not None:
        rates.set(codes, now, columns)
    return columns.T


def answer(moment: int, user: str, *items: object, place: int = 1) -> Impression:
    shown = [[item, 0.5, 1.0, position] for position, item in enumerate(items, start=place)]
    return Impression(f"{moment} {user}", user, moment, "v", json.dumps(shown), 0)


def weeks(seed: int) -> Iterator[Impression | Event]:
    """Yield what is shown to known and unknown users within 40 days, pages of one hour among it, and what they take."""
    rng = np.random.default_rng(seed)
    for moment in sorted(rng.integers(NOW - 40 * DAY, NOW, 60).tolist()):
        user = str(rng.choice(["4", "5", "stranger", "somebody else"]))
        for page in range(int(rng.integers(1, 3))):
            items = rng.choice([*map(str, ITEMS[:12]), "never heard of"], 4, replace=False).tolist()
            yield answer(moment + page * int(rng.integers(9, 2_000)), user, *items, place=1 + 4 * page)
        yield Event(f"e{moment}", user, str(items[0]), "click", moment + 60)


def trained(store: EventStore, now: int) -> FloatArray:
    """Return (n_items, 2) what training on the log says of ITEMS."""
    tables, log = with_log(accepted_tables(interactions_frame(), None, items_frame(), DataSettings()), store.url)
    dataset = RecommendationDataset.from_clean(tables, DataSettings(), log=log)
    shown = load_showings(store.url, dataset.user_ids, dataset.item_ids, since=now)
    rates = TakeRates(ItemLooks.of(shown), Timeline(dataset.interactions, dataset.n_items))
    return of_items(rates, dataset.item_ids.codes(ITEMS), now)


def trained_at(bundle: ModelBundle, store: EventStore, now: int) -> ModelBundle:
    """Return a version that was trained on a log as it is now."""
    looks = ItemLooks.of(load_showings(store.url, bundle.user_ids, bundle.item_ids, since=now))
    manifest = bundle.manifest.model_copy(update={"log_id": store.log_id})
    return replace(bundle, manifest=manifest, read_looks=lambda: looks)


@pytest.mark.parametrize("n_before", [0, 1, 90, 130])
def test_the_service_says_what_training_would_say_at_the_same_moment(
    curious: ModelBundle, store: EventStore, n_before: int
) -> None:
    changes = list(weeks(n_before))
    store.write(changes[:n_before])
    base = trained_at(curious, store, NOW)
    early = Worker.of(base, store)
    assert len(changes) > n_before + 5
    for first in range(n_before, len(changes), 25):
        store.write(changes[first : first + 25])
        early.statistics.refresh()
    late = Worker.of(base, store)
    late.statistics.refresh()
    for now in (NOW + 2 * HOUR, NOW + 5 * DAY):
        expected = trained(store, now)
        assert expected[:12].any(axis=0).all()
        assert np.array_equal(early.rates(now), expected)
        assert np.array_equal(late.rates(now), expected)


def test_an_item_that_is_shown_in_vain_falls_behind_an_hour_later(curious: ModelBundle, store: EventStore) -> None:
    worker, hour = Worker.of(curious, store), NOW // HOUR * HOUR
    store.write([answer(hour + n, f"user {n}", 101, 102, 103) for n in range(30)])
    store.write([Event(f"e{n}", f"user {n}", "102", "click", hour + n) for n in range(9)])
    store.write([Event("late", "user", "139", "click", hour + 3 * HOUR)])
    worker.statistics.refresh()
    assert not worker.rates(hour + 2 * HOUR - 1).any()
    rates = worker.rates(hour + 2 * HOUR)
    assert rates[2, 1] > 0 > rates[1, 1]
    assert (rates[3:, 1] == 0).sum() == len(rates) - 4
    assert rates[1, 0] > rates[2, 0] > rates[3, 0] > 0


def test_all_of_another_log_counts_on_top(curious: ModelBundle, store: EventStore) -> None:
    store.write([answer(NOW - n * HOUR, "4", 101) for n in range(5)])
    own = trained_at(curious, store, NOW)
    other = replace(own, manifest=own.manifest.model_copy(update={"log_id": "another one"}))
    assert Worker.of(own, store).looks() == 5
    assert Worker.of(other, store).looks() == 10


def test_a_version_that_does_not_ask_is_told_nothing(
    bundle: ModelBundle, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundle.ranker is None or not bundle.ranker.reads_looks
    monkeypatch.setattr(live_looks, "SHOWN_AFTER", None)
    worker = Worker.of(replace(bundle, read_looks=lambda: pytest.fail("nobody asks")), store)
    store.write([answer(NOW, "4", 101)])
    assert worker.looks() == 0
    assert worker.live.knowledge.looks is NO_LOOKS
    assert worker.live.inference.items.rates is None


def test_a_log_that_is_pruned_or_forgets_a_user_is_followed_on(curious: ModelBundle, store: EventStore) -> None:
    worker = Worker.of(curious, store)
    assert worker.looks() == 0
    store.write([answer(NOW + n * HOUR, "4", 101) for n in range(20)])
    assert worker.looks() == 20
    store.write([Erasure("4", user_hash("4"))])
    store.write([answer(NOW + 30 * HOUR, "5", 101)])
    assert worker.looks() in {20, 21}  # SQLite gives the places again that became free
    store.write([answer(NOW + 31 * HOUR, "5", 101)])
    assert worker.looks() == 22
    prune(store.url, NOW + 40 * HOUR)
    assert worker.looks() == 22
    store.write([answer(NOW + (50 + n) * HOUR, "5", 101) for n in range(10)])
    found = worker.looks()
    store.write([answer(NOW + 70 * HOUR, "5", 101)])
    assert worker.looks() == found + 1


def test_a_clock_that_was_wrong_for_a_moment_does_not_end_the_counting(curious: ModelBundle, store: EventStore) -> None:
    worker = Worker.of(curious, store)
    store.write([answer(NOW, "4", 101), answer(NOW + 9_000 * DAY, "4", 102)])
    worker.looks()
    for hours in range(1, 5):
        store.write([answer(NOW + hours * HOUR, "4", 101)])
        worker.looks()
    of_item = worker.live.knowledge.looks.item_codes == worker.live.catalogue.code(101)
    assert worker.live.knowledge.looks.looks[of_item].tolist() in ([1] * 5, [2, 1, 1, 1, 1])  # what was read once more
    base = trained_at(curious, store, NOW)
    kept = base.looks.recent(NOW // HOUR)
    assert kept.last_hour == NOW // HOUR + 4


def test_what_is_shown_of_an_item_counts_once_the_worker_knows_it(curious: ModelBundle, store: EventStore) -> None:
    worker = Worker.of(curious, store)
    store.write([answer(NOW, "4", "to come")])
    assert worker.looks() == 0
    store.write([ItemChange("to come", "visible", "{}"), answer(NOW + HOUR, "4", "nobody's")])
    worker.live.catch_up()
    assert worker.looks() == 1


def test_of_very_many_showings_none_is_kept_longer_than_there_is_room(
    curious: ModelBundle, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_looks, "MAX_OPEN", 20)
    worker = Worker.of(curious, store)
    for turn in range(4):
        store.write([answer(NOW // HOUR * HOUR + n, f"{turn} {n}", 101) for n in range(50)])
        worker.statistics.refresh()
    store.write([answer(NOW + HOUR, "4", 101)])
    assert worker.looks() == 201
    assert sum(map(len, worker.statistics._looks._open if worker.statistics._looks else [])) <= 10


def test_of_a_long_log_the_answers_of_the_last_weeks_are_read(
    curious: ModelBundle, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [100, 70, 40, 29, 28, 2, 1, 0]
    store.write([answer(NOW - day * DAY + n * 10, f"{n}", 101) for day in days for n in range(9)])
    assert Worker.of(curious, store).looks() == 9 * 5
    monkeypatch.setattr(live_looks, "MAX_ANSWERS", 12)
    late = 3  # that are read once more
    assert Worker.of(curious, store).looks() == 12 + late
    own = trained_at(curious, store, NOW)
    store.write([answer(NOW + n * 10, f"{n}", 101) for n in range(20, 22)])
    assert Worker.of(own, store).looks() == 9 * 5 + 2
    store.write([answer(NOW + n * 10, f"{n}", 101) for n in range(40, 60)])
    assert Worker.of(own, store).looks() == 12 + late


def test_answers_that_show_nothing_or_have_no_time_hold_up_nobody(curious: ModelBundle, store: EventStore) -> None:
    worker = Worker.of(curious, store)
    store.write([Impression("nothing", "4", NOW, "v", "[]", 0), Event("e", "4", "101", "click", NOW)])
    assert worker.looks() == 0
    assert worker.live.knowledge.timeline.end > NOW
    if store.url.startswith("sqlite"):
        store.write([answer(NOW + HOUR, "5", 102)])
        with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as database, database:
            database.execute("UPDATE impressions SET timestamp = 'yesterday' WHERE user_id = '5'")
    store.write([answer(NOW + 2 * HOUR, "4", 101)])
    assert worker.looks() == 1
    assert Worker.of(curious, store).looks() == 1


def test_the_rest_of_an_hour_counts_though_nobody_comes_after_it(curious: ModelBundle, store: EventStore) -> None:
    worker, hour = Worker.of(curious, store), NOW // HOUR * HOUR
    store.write([answer(hour + number, f"user {number}", 101, 102) for number in range(5)])
    worker.statistics.refresh()
    store.write([answer(hour + 600 + number, f"another {number}", 101, 102) for number in range(50)])
    store.write([Event("late", "somebody", "110", "click", hour + HOUR + 5)])
    worker.statistics.refresh()
    assert np.array_equal(worker.rates(hour + 10 * HOUR), trained(store, hour + 10 * HOUR))
