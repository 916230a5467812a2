"""The service of the closed loop: the request path and the log of the real one, at the moments of a simulated world."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from rec_engine.bundle import ModelBundle, current_version, open_bundle
from rec_engine.data.bulk import BulkWriter
from rec_engine.data.dataset import ExternalId, FloatArray, RecommendationDataset
from rec_engine.data.event_table import clean_events, log_rows
from rec_engine.data.events import VISIBLE, Event, EventStore, Impression, ItemChange
from rec_engine.data.log_tables import with_log
from rec_engine.data.validation import REQUIRED, accepted_tables
from rec_engine.pipeline.train import TrainingReport, train
from rec_engine.serving.answers import Answerer
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.inference import Query, unmeasured
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.utils.config import ModelConfig, ServingConfig

NO_DEADLINE_MS = 600_000
"""What an answer holds must not depend on how busy the machine is."""
NAME = "the closed loop"
K_OF_CANDIDATES = 10


@dataclass(frozen=True, slots=True)
class Page:
    """What a user was shown.

    Attributes:
        request_id: of the answer.
        item_ids: best place first.
        shown: JSON for the log.
        version: that answered.
        position: of the log, up to which it knew it.
    """

    request_id: str
    item_ids: list[ExternalId]
    shown: str
    version: str
    position: int


class Answering(Protocol):
    """Whoever answers the people of a loop."""

    def refresh(self) -> None:
        """Let answers go by the latest popularity and trends."""
        ...

    def answer(
        self, user_id: ExternalId, moment: int, request_id: str, k: int, shown_before: Sequence[ExternalId] = ()
    ) -> Page:
        """Return what a user sees who asks for k items at a moment (Unix seconds), without what the visit has shown."""
        ...


class ServedModel:
    """One version that follows the log and answers at the moments it is told, without HTTP and cache.

    Args:
        bundle: the version.
        store: the log.
        exploration: temperature of the draw, as `recommendations.exploration`.
        is_served: whether its answers are shown.
        new_item_share: of the drawn places, as `recommendations.new_item_share`.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        store: EventStore,
        exploration: float,
        *,
        is_served: bool = True,
        new_item_share: float = 0.0,
    ) -> None:
        config = ServingConfig.model_validate(
            {
                "api": {"deadline_ms": NO_DEADLINE_MS},
                "redis": {"cache_ttl": 0},
                "recommendations": {"exploration": exploration, "new_item_share": new_item_share},
            }
        )
        self.live = LiveModel(bundle, config.recommendations, store, is_served=is_served)
        self._statistics = LiveStatistics(self.live, store)
        self._answerer = Answerer(self.live, config, InMemoryCache(), lambda: self._now)
        self._now = 0

    def refresh(self) -> None:
        """Let answers go by the latest popularity and trends, as the service does by a thread of its own."""
        self.live.catch_up()
        self._statistics.refresh()

    def answer(
        self, user_id: ExternalId, moment: int, request_id: str, k: int, shown_before: Sequence[ExternalId] = ()
    ) -> Page:
        """Return what a user sees who asks for k items at a moment (Unix seconds), without what the visit has shown."""
        self._now = moment
        self.live.catch_up()
        request = RecommendRequest(user_id=user_id, num_recommendations=k, exclude_items=list(shown_before))
        answer = self._answerer.recommend(request, request_id, unmeasured)
        item_ids = [row[0] for row in json.loads(answer.shown)]
        return Page(request_id, item_ids, answer.shown.decode(), self.live.bundle.version, self.live.position)

    def candidates(self, user_id: ExternalId, moment: int) -> tuple[list[str], FloatArray]:
        """Return what could be shown to a user at a moment (Unix seconds), and (n,) the scores that order it."""
        self.live.catch_up()
        state = self.live.with_shown(self.live.user(user_id).at(moment), user_id)
        trace = self.live.inference.recommend(Query(state, K_OF_CANDIDATES))
        views = map(self.live.catalogue.view, trace.candidates.item_codes.tolist())
        return [str(view.item_id) for view in views], trace.order


class Shop:
    """The log, the registry and what the shop knows of users and items beside them.

    Args:
        directory: for the log and the versions.
        config: how versions are trained.
        users: of the world; who has joined is known.
        items: of the world; what is released is offered.

    Attributes:
        config: how versions are trained.
        store_url: of the log.
        model_dir: the registry.
    """

    def __init__(self, directory: Path, config: ModelConfig, users: pl.DataFrame, items: pl.DataFrame) -> None:
        self.config, self._users, self._items = config, users, items
        self.store_url = f"sqlite:///{directory / 'events.db'}"
        self.model_dir = directory / "models"
        self._stores = ExitStack()
        self._store = self._opened()
        self._offered_until = 0

    def close(self) -> None:
        """Let go of the log."""
        self._stores.close()

    def ingest(self, interactions: pl.DataFrame, now: int) -> None:
        """Write what happened before there was an engine into the log."""
        events = interactions.select("user_id", "item_id", "timestamp", "event")
        with BulkWriter(self.store_url) as writer:
            writer.write(log_rows(clean_events(events, self.config.data, now).frame))

    def offer(self, now: int) -> None:
        """Add what was released since the last call and up to a moment (Unix seconds) to the catalogue."""
        released = self._items.filter(pl.col("released") > self._offered_until, pl.col("released") <= now)
        self._offered_until = now
        rows = released.drop("item_id").to_dicts()
        ids = released["item_id"].cast(pl.String).to_list()
        if rows:
            self._store.write(
                [ItemChange(item_id, VISIBLE, json.dumps(row)) for item_id, row in zip(ids, rows, strict=True)]
            )

    def take_note(self, page: Page, user_id: ExternalId, moment: int, events: list[Event]) -> None:
        """Write an answer and what came of it."""
        shown = Impression(page.request_id, str(user_id), moment, page.version, page.shown, page.position)
        self._store.write([shown, *events])

    def dataset(self, now: int) -> RecommendationDataset:
        """Return what the log says, and who has joined until a moment (Unix seconds)."""
        joined = self._users.filter(pl.col("joined") <= now)
        nothing = pl.DataFrame(schema=dict.fromkeys(REQUIRED, pl.Int64))
        tables, log = with_log(accepted_tables(nothing, joined, None, self.config.data), self.store_url)
        return RecommendationDataset.from_clean(tables, self.config.data, log=log)

    def train(self, now: int) -> TrainingReport:
        """Return what came of training on the log: a version, which is current if the gate lets it through."""
        return train(self.dataset(now), self.config, self.model_dir, name=NAME, log_url=self.store_url)

    def current(self) -> ModelBundle:
        """Return the version that is promoted."""
        return open_bundle(self.model_dir / str(current_version(self.model_dir)))

    def served(
        self,
        bundle: ModelBundle,
        exploration: float,
        *,
        is_served: bool = True,
        new_item_share: float = 0.0,
    ) -> ServedModel:
        """Return a version ready to answer."""
        return ServedModel(bundle, self._opened(), exploration, is_served=is_served, new_item_share=new_item_share)

    def _opened(self) -> EventStore:
        """Return the log for one more reader: each is told of what is new to it."""
        store = EventStore(self.store_url)
        self._stores.callback(store.close)
        return store
