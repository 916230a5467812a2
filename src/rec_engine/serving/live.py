"""A model in service: what was trained, and what happened since, up to the last event that was acknowledged."""

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import ExternalId
from rec_engine.data.events import EventStore
from rec_engine.data.live import LiveHistories, LiveUser
from rec_engine.errors import StoreError
from rec_engine.serving.inference import RecommendationInference
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

logger = get_logger(__name__)


class LiveModel:
    """One bundle that follows the log.

    Args:
        bundle: the model.
        settings: the `recommendations:` section.
        store: the log.

    Attributes:
        inference: answers queries.
        catalogue_version: grows with every change of an item.
        is_behind: whether the log could not be read at the last try, so that what came since may be missing.
    """

    def __init__(self, bundle: ModelBundle, settings: RecommendationSettings, store: EventStore) -> None:
        self.bundle = bundle
        self.inference = RecommendationInference.of(bundle, settings)
        self.histories = LiveHistories(
            bundle.history,
            bundle.user_ids,
            bundle.item_ids.code,
            settings=bundle.config.data,
            store=store,
            since=bundle.manifest.log_position,
        )
        self.catalogue_version = 0
        self.is_behind = False
        self._store = store
        standing = store.standing()
        self._position = standing.position
        self.histories.follow(standing)

    def catch_up(self) -> None:
        """Follow the log to its end, so that the next answer knows everything that was acknowledged."""
        try:
            if self.is_behind or self._store.has_changed():
                while (news := self._store.news(self._position)).position > self._position:
                    self.histories.follow(news)
                    self._position = news.position
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
