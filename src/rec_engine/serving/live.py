"""A model in service: what was trained, and what happened since, up to the last event that was acknowledged."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from rec_engine.bundle import Manifest, ModelBundle
from rec_engine.data.dataset import ExternalId, FloatArray, IdMap
from rec_engine.data.events import DELETED, VISIBLE, EventStore, ItemChange, News
from rec_engine.data.live import LiveHistories, LiveUser
from rec_engine.data.live_showings import LiveShowings
from rec_engine.data.rows import GrowingRows
from rec_engine.data.state import COLD, UserState, state_of
from rec_engine.errors import DataError, StoreError
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.serving.inference import Knowledge, Query, RecommendationInference
from rec_engine.serving.rules import RuleBook
from rec_engine.serving.segments import Segments
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

SPARE_ITEMS, SPARE_SHARE = 1_000, 20
"""Room for items to come: so many, or this part of the catalogue where that is more; as often as the log needs it."""
FOLLOWED_EVENTS = 2_000
"""Of more events at once nobody asks whose they are: to read a user again costs less."""
ANSWERED_ONCE = 10
"""Items of the answer that a model gives to nobody before it is asked."""

logger = get_logger(__name__)


class LiveModel:
    """One bundle that follows the log.

    Args:
        bundle: the model.
        settings: the `recommendations:` section.
        store: the log.
        is_served: whether its answers are shown; the log of a model that is only tried is not written to.

    Attributes:
        catalogue: the items as they are now.
        index: search among their vectors.
        knowledge: what is known of the items beside their vectors.
        inference: answers queries.
        catalogue_version: grows with every change of an item.
        rules: of the shop, as they are now.
        log_id: of the log.
        since: position of the log up to which the model was trained with it.
        position: how far it knows the log.
        n_left_out: changes of items for which there was no room, a restart makes some; or that could not be applied.
        is_behind: whether the log could not be read at the last try, so that what came since may be missing.
    """

    def __init__(
        self, bundle: ModelBundle, settings: RecommendationSettings, store: EventStore, *, is_served: bool = True
    ) -> None:
        self.bundle = bundle
        self.log_id = store.log_id
        self.since = _trained_until(bundle.manifest, store, is_served=is_served)
        standing = store.standing()
        capacity = _capacity(bundle.item_ids, standing.items)
        self.catalogue = Catalogue(bundle.items, capacity, settings.caps)
        self.index = bundle.index.with_room(capacity)
        self._inputs = GrowingRows(bundle.user_tower.item_inputs, capacity)
        self._tower = replace(bundle.user_tower, room=self._inputs)
        self._settings = settings
        links = {name: of_items.widened(capacity) for name, of_items in bundle.links.items()}
        self.knowledge = Knowledge.of(bundle.history, links, bundle.looks)
        self.inference = self._assembled(self.knowledge)
        self.histories = LiveHistories(
            bundle.history,
            bundle.user_ids,
            self.catalogue.code,
            settings=bundle.config.data,
            store=store,
            since=self.since,
        )
        self._showings = LiveShowings(self.catalogue.code, store)
        self.catalogue_version = 0
        self._segments = Segments(bundle.users)
        self.rules = RuleBook({}, self.catalogue, self._segments)
        self.n_left_out = 0
        self.is_behind = False
        self._store = store
        self.position = standing.position
        self._follow(standing)
        for ids_with_code in (self.catalogue.code, bundle.user_ids.code):
            ids_with_code("")  # the first look-up makes the table for all others
        self._answer_once(self.inference)
        for name in settings.caps:
            if (self.catalogue.labels(name) < 0).all():
                logger.warning("recommendations.caps: no item has the attribute %r, nothing is held back by it", name)

    def exchange(self, knowledge: Knowledge) -> None:
        """Let answers go by later statistics of the items from the next request on."""
        inference = self._assembled(knowledge)
        self._answer_once(inference)
        self.knowledge, self.inference = knowledge, inference

    def _answer_once(self, inference: RecommendationInference) -> None:
        """Have made what the first answer would wait for: what all have in common, and machine code."""
        user = state_of(self.bundle.history, 0 if self.bundle.history.n_users else COLD, int(time.time()))
        if inference.items.rates:
            inference.items.rates.make_ready(user.now)
        inference.recommend(Query(user, ANSWERED_ONCE))

    def catch_up(self) -> None:
        """Follow the log to its end, so that the next answer knows everything that was acknowledged."""
        try:
            while (latest := self._store.latest()) > self.position:
                news = self._next_news(latest)
                self._follow(news)
                self.position = news.position
            self.is_behind = False
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

    def with_shown(self, state: UserState, user_id: ExternalId) -> UserState:
        """Return a user's state with what he was shown, if it will be asked for; as last read where the log fails."""
        ranker = self.bundle.ranker
        if ranker is None or not ranker.reads_showings or not len(state.liked):
            return state
        if not self.is_behind:
            try:
                return replace(state, shown=self._showings.of_user(user_id, state.now))
            except StoreError as error:
                logger.warning("answers go on without what was shown lately: %s", error)
                self.is_behind = True
        return replace(state, shown=self._showings.kept(user_id))

    def _next_news(self, latest: int) -> News:
        """Return what to follow next; where that is very much, all users are forgotten instead of each of them."""
        if latest - self.position <= FOLLOWED_EVENTS:
            return self._store.news(self.position)
        self.histories.forget()
        return self._store.news_without_events(self.position)

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
        outrun = [change for change in news.items if not self._survived(self._change, change)]
        # What did not fit beside values that later changes take away does once they are gone.
        self.catalogue.clear([change.item_id for change in outrun])
        for change in outrun:
            self._survived(self._change_anyhow, change)
        self.catalogue_version = max([self.catalogue_version, *(change.position for change in news.items)])
        if news.rules:
            self.rules = RuleBook.read(news.rules, self.catalogue, self._segments)
        elif news.items:
            self.rules.items_changed()
        self.histories.follow(news)
        self._showings.follow(news)

    def _survived(self, apply: Callable[[ItemChange], bool], change: ItemChange) -> bool:
        """Return what applying a change returns. An error that nobody foresaw hides the item, and ends nothing else.

        The change is in the log: if one stopped those that follow it, no restart would help.
        """
        try:
            return apply(change)
        except Exception:
            logger.exception("item %s is left out: its change at %d cannot be applied", change.item_id, change.position)
            self.n_left_out += 1
            self.catalogue.remove(change.item_id)
            return True

    def _change(self, change: ItemChange, values: Mapping[str, object] | None = None) -> bool:
        """Return whether the catalogue has an item as it is now; if not, nothing has changed.

        Args:
            change: of the item.
            values: that it has from now on; without it those of the change.
        """
        values = change.values if values is None else values
        if change.status == DELETED:
            self.catalogue.remove(change.item_id)
            return True
        is_new = self.catalogue.code(change.item_id) < 0
        # Before the item has a code: one without a vector would shift those of all that come later.
        encoded = self._encoded(values) if is_new else None
        try:
            code = self.catalogue.put(change.item_id, values, is_visible=change.status == VISIBLE)
        except DataError:
            return False
        if encoded:
            item_input, vector = encoded
            self._inputs.put(code, item_input)
            self.index.append(vector[None])
        return True

    def _change_anyhow(self, change: ItemChange) -> bool:
        """Take what fits of an item that was acknowledged beside another model, whose attributes have other types."""
        if self._change(change):
            return True
        fitting = self.catalogue.attributes.fitting(change.values)
        if self._change(change, fitting):
            dropped = ", ".join(sorted(change.values.keys() - fitting.keys()))
            logger.warning("item %s has values that do not fit this model's attributes: %s", change.item_id, dropped)
            return True
        self.n_left_out += 1
        logger.error("item %s is left out: there is no room for it until the next restart", change.item_id)
        return False

    def _encoded(self, values: Mapping[str, object]) -> tuple[FloatArray, FloatArray]:
        """Return what the towers make of an item that they have not met: (embedding_dim,) and (dim,) float32."""
        item_inputs, vectors = self._encode(values)
        if not np.isfinite(vectors).all():  # a number is beyond what they can reckon with: by its texts alone
            texts = {name: value for name, value in values.items() if not isinstance(value, float | int)}
            item_inputs, vectors = self._encode(texts)
        return item_inputs[0], vectors[0]

    def _encode(self, values: Mapping[str, object]) -> tuple[FloatArray, FloatArray]:
        schema = self.bundle.items.schema
        cells = [_cell(name, values.get(name), kind) for name, kind in schema.items() if name != "item_id"]
        return self.bundle.item_tower.encode(pl.DataFrame(cells))


def _cell(name: str, value: object, kind: pl.DataType) -> pl.Series:
    """Return a value in the type in which the model learnt its attribute; null where it cannot be one."""
    try:
        return pl.Series(name, [value], dtype=kind, strict=False).cast(kind, strict=False)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):  # as the constructor of each type has it
        return pl.Series(name, [None], dtype=kind)


def _trained_until(manifest: Manifest, store: EventStore, *, is_served: bool) -> int:
    """Return up to which position of this log its events are part of what the model was trained with.

    Raises:
        StoreError: if the log cannot be read.
    """
    trained = manifest.log_position
    if trained and manifest.log_id != store.log_id:
        logger.warning(
            "%s was trained with another event log than %s: all events of this one count on top of its training",
            manifest.version,
            store.name,
        )
        return 0
    if (position := store.position()) < trained:
        logger.warning(
            "%s ends at position %d, and %s was trained with it up to %d: it is an older copy, and goes on from there",
            store.name,
            position,
            manifest.version,
            trained,
        )
        if not is_served:
            return position  # what comes gets the next positions, as long as nobody whose answers count says otherwise
        store.go_on_from(trained)
    return trained


def _capacity(item_ids: IdMap, changes: Sequence[ItemChange]) -> int:
    """Return how many items there may be; the same for every worker as long as none of them took more than that."""
    spare = max(SPARE_ITEMS, len(item_ids) // SPARE_SHARE)
    n_new = int((item_ids.codes([change.item_id for change in changes]) < 0).sum())
    return len(item_ids) + spare * max(1, math.ceil(n_new / spare))
