"""The service of the closed loop: the request path and the log of the real one, at the moments of a simulated world."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rec_engine.bundle import ModelBundle, current_version, open_bundle
from rec_engine.data.bulk import BulkWriter
from rec_engine.data.dataset import ExternalId, RecommendationDataset
from rec_engine.data.event_table import clean_events, log_rows
from rec_engine.data.events import VISIBLE, Event, EventStore, Impression, ItemChange
from rec_engine.data.log_tables import with_log
from rec_engine.data.validation import REQUIRED, accepted_tables
from rec_engine.pipeline.train import TrainingReport, train
from rec_engine.serving.answers import Answerer
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.inference import unmeasured
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.utils.config import ModelConfig, ServingConfig

NO_DEADLINE_MS = 600_000
"""What an answer holds must not depend on how busy the machine is."""
NAME = "the closed loop"


@dataclass(frozen=True, slots=True)
class Page:
    """What a user was shown.

    Attributes:
        request_id: of the answer.
        item_ids: best place first.
        shown: JSON for the log.
    """

    request_id: str
    item_ids: list[ExternalId]
    shown: str


class ServedModel:
    """One version that follows the log and answers at the moments it is told, without HTTP and cache.

    Args:
        bundle: the version.
        store: the log.
        exploration: temperature of the draw, as `recommendations.exploration`.
        is_served: whether its answers are shown.
    """

    def __init__(self, bundle: ModelBundle, store: EventStore, exploration: float, *, is_served: bool = True) -> None:
        config = ServingConfig.model_validate(
            {
                "api": {"deadline_ms": NO_DEADLINE_MS},
                "redis": {"cache_ttl": 0},
                "recommendations": {"exploration": exploration},
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
        return Page(request_id, [row[0] for row in json.loads(answer.shown)], answer.shown.decode())


class Shop:
    """The log, the registry and what the shop knows of users and items beside them.

    Args:
        directory: for the log and the versions.
        config: how versions are trained.
        users: of the world; who has joined is known.
        items: of the world; what is released is offered.
    """

    def __init__(self, directory: Path, config: ModelConfig, users: pl.DataFrame, items: pl.DataFrame) -> None:
        self._config, self._users, self._items = config, users, items
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
            writer.write(log_rows(clean_events(events, self._config.data, now).frame))

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

    def take_note(
        self, page: Page, user_id: ExternalId, moment: int, model: "ServedModel", events: list[Event]
    ) -> None:
        """Write an answer and what came of it."""
        live = model.live
        shown = Impression(page.request_id, str(user_id), moment, live.bundle.version, page.shown, live.position)
        self._store.write([shown, *events])

    def train(self, now: int) -> TrainingReport:
        """Return what came of training on the log: a version, which is current if the gate lets it through."""
        joined = self._users.filter(pl.col("joined") <= now)
        nothing = pl.DataFrame(schema=dict.fromkeys(REQUIRED, pl.Int64))
        tables, log = with_log(accepted_tables(nothing, joined, None, self._config.data), self.store_url)
        dataset = RecommendationDataset.from_clean(tables, self._config.data, log=log)
        return train(dataset, self._config, self.model_dir, name=NAME, log_url=self.store_url)

    def model(self, exploration: float, *, is_served: bool = True) -> "ServedModel":
        """Return the version that is promoted, ready to answer."""
        bundle = open_bundle(self.model_dir / str(current_version(self.model_dir)))
        return ServedModel(bundle, self._opened(), exploration, is_served=is_served)

    def _opened(self) -> EventStore:
        """Return the log for one more reader: each is told of what is new to it."""
        store = EventStore(self.store_url)
        self._stores.callback(store.close)
        return store
