"""A model in service: what was trained, and what happened since, up to the last event that was acknowledged."""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import ExternalId, FloatArray
from rec_engine.data.events import EventStore, ItemChange, News
from rec_engine.data.live import LiveHistories, LiveUser
from rec_engine.data.rows import GrowingRows
from rec_engine.errors import DataError, StoreError
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.serving.inference import Knowledge, RecommendationInference
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

SPARE_ITEMS, SPARE_SHARE = 1_000, 20
"""Room for items to come: so many, or this part of the catalogue where that is more."""
VISIBLE, HIDDEN, DELETED = "visible", "hidden", "deleted"

logger = get_logger(__name__)


class LiveModel:
    """One bundle that follows the log.

    Args:
        bundle: the model.
        settings: the `recommendations:` section.
        store: the log.

    Attributes:
        catalogue: the items as they are now.
        index: search among their vectors.
        knowledge: what is known of the items beside their vectors.
        inference: answers queries.
        catalogue_version: grows with every change of an item.
        position: how far it knows the log.
        is_behind: whether the log could not be read at the last try, so that what came since may be missing.
    """

    def __init__(self, bundle: ModelBundle, settings: RecommendationSettings, store: EventStore) -> None:
        self.bundle = bundle
        capacity = len(bundle.item_ids) + max(SPARE_ITEMS, len(bundle.item_ids) // SPARE_SHARE)
        self.catalogue = Catalogue(bundle.items, capacity)
        self.index = bundle.index.with_room(capacity)
        self._inputs = GrowingRows(bundle.user_tower.item_inputs, capacity)
        self._tower = replace(bundle.user_tower, room=self._inputs)
        self._settings = settings
        links = {name: of_items.widened(capacity) for name, of_items in bundle.links.items()}
        self.knowledge = Knowledge.of(bundle.history, links)
        self.inference = self._assembled(self.knowledge)
        self.histories = LiveHistories(
            bundle.history,
            bundle.user_ids,
            self.catalogue.code,
            settings=bundle.config.data,
            store=store,
            since=bundle.manifest.log_position,
        )
        self.catalogue_version = 0
        self.is_behind = False
        self._is_new = True
        self._store = store
        standing = store.standing()
        self.position = standing.position
        self._follow(standing)

    def exchange(self, knowledge: Knowledge) -> None:
        """Let answers go by later statistics of the items from the next request on."""
        self.knowledge, self.inference = knowledge, self._assembled(knowledge)

    def catch_up(self) -> None:
        """Follow the log to its end, so that the next answer knows everything that was acknowledged."""
        try:
            has_changed = self._store.has_changed()  # asked always: it remembers what it has been asked
            if has_changed or self.is_behind or self._is_new:
                while (news := self._store.news(self.position)).position > self.position:
                    self._follow(news)
                    self.position = news.position
            self.is_behind = self._is_new = False
        except StoreError as error:
            if not self.is_behind:
                logger.warning("answers go on without the latest events: %s", error)
            self.is_behind = True

    def user(self, user_id: ExternalId) -> LiveUser:
        """Return a user as of now; as of the training where the log cannot be read."""
        if not self.is_behind:
            try:
                return self.histories.user(user_id)
            except StoreError as error:
                logger.warning("answers go on without the latest events: %s", error)
                self.is_behind = True
        return self.histories.base_user(user_id)

    def _assembled(self, knowledge: Knowledge) -> RecommendationInference:
        return RecommendationInference.assemble(
            self._tower,
            self.index,
            self.catalogue,
            knowledge=knowledge,
            ranker=self.bundle.ranker,
            settings=self._settings,
            repeats=self.bundle.repeats,
        )

    def _follow(self, news: News) -> None:
        for change in news.items:
            self._change(change)
            self.catalogue_version = change.position
        self.histories.follow(news)

    def _change(self, change: ItemChange) -> None:
        if change.status == DELETED:
            self.catalogue.hide(change.item_id)
            return
        is_new = self.catalogue.code(change.item_id) < 0
        values = json.loads(change.attributes)
        try:
            # Before the item has a code: one without a vector would shift those of all that come later.
            encoded = self._encoded(values) if is_new else None
            code = self.catalogue.put(change.item_id, values, is_visible=change.status == VISIBLE)
        except DataError as error:
            logger.warning("item %s is left out: %s", change.item_id, error)
            return
        if encoded:
            item_input, vector = encoded
            self._inputs.put(code, item_input)
            self.index.append(vector[None])

    def _encoded(self, values: Mapping[str, object]) -> tuple[FloatArray, FloatArray]:
        """Return what the towers make of an item that they have not met: (embedding_dim,) and (dim,) float32.

        Raises:
            DataError: if that is no number.
        """
        schema = {name: kind for name, kind in self.bundle.items.schema.items() if name != "item_id"}
        row = pl.DataFrame([{name: values.get(name) for name in schema}], schema=schema, strict=False)
        item_inputs, vectors = self.bundle.item_tower.encode(row)
        if not np.isfinite(vectors).all():
            raise DataError("its description makes no vector", hint="leave out the largest of its numbers")
        return item_inputs[0], vectors[0]
