"""Search among more vectors than one process should look through: in Milvus, and in the process while that is away."""

import importlib.util
import logging
import math
import os
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.errors import ConfigError
from rec_engine.retrieval.cells import Engine
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.milvus_collection import MOST_FOUND, MilvusCollection, failures
from rec_engine.utils.background import Retry
from rec_engine.utils.logger import get_logger
from rec_engine.utils.service_settings import MilvusSettings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN_VARIABLE = "MILVUS_TOKEN"  # noqa: S105 - the variable's name
SPARE, MORE = 1.5, 20
"""As many times k, and so many, are asked for: Milvus' index is not exact either, but scores are."""
CONNECT_SECONDS = 10.0

logger = get_logger(__name__)


def in_milvus(index: FAISSIndex, settings: MilvusSettings) -> FAISSIndex:
    """Return an index that asks Milvus, as soon as the vectors are there, and until then what it asked before.

    Narrow sets of items are scanned in the process as ever, and scores are exact: Milvus finds, it does not score.

    Raises:
        ConfigError: if Milvus' client is not installed.
    """
    if importlib.util.find_spec("pymilvus") is None:
        raise ConfigError("milvus.uri is set, but pymilvus is missing", hint="pip install 'rec-engine[milvus]'")

    def engine_of(embedded: Engine) -> Engine:
        engine = MilvusEngine(embedded, index.vectors, settings)
        engine.start()
        return engine

    return index.searched_by(engine_of)


@dataclass(slots=True, weakref_slot=True)
class MilvusEngine:
    """Asks Milvus for what is near; what it fails to answer, the embedded engine does.

    Items that were added since stay in the process: they are few, and every search finds them.

    Attributes:
        embedded: the engine of the process.
        vectors: (n, dim) float32 that Milvus is to hold.
        settings: the `milvus:` section.
    """

    embedded: Engine
    vectors: FloatArray
    settings: MilvusSettings
    _collection: MilvusCollection | None = None
    _added: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    _losing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_connected(self) -> bool:
        """Whether searches go to Milvus."""
        return self._collection is not None

    def start(self) -> None:
        """Let a thread connect, however often it takes, as long as somebody holds this; requests do not wait for it."""
        threading.Thread(target=_connect, args=(weakref.ref(self),), name="milvus", daemon=True).start()

    def connect(self) -> None:
        """Put the vectors there, unless they are, and search there from now on.

        Raises:
            Exception: one of `failures` if Milvus cannot be reached, refuses, or is too slow.
        """
        collection = MilvusCollection(_client(self.settings), self.vectors, self.settings.timeout_ms / 1e3)
        collection.prepare()
        self._collection = collection
        logger.info("searches go to Milvus at %s, collection %s", self.settings.uri, collection.name)

    def near(self, query: FloatArray, breadth: int, k: int, eligible: Eligible) -> IntArray:
        """Return eligible items near a query (dim,): k and some more, or fewer where the filter left too few.

        Args:
            query: (dim,) float32.
            breadth: of the embedded engine's search.
            k: items wanted.
            eligible: items that may be found.
        """
        collection = self._collection
        if collection is None:
            return self.embedded.near(query, breadth, k, eligible)
        try:
            found = self._found(collection, query, k, eligible)
        except failures() as error:
            logger.warning("Milvus does not answer, the process searches itself: %s", error)
            self._lose(collection)
            return self.embedded.near(query, breadth, k, eligible)
        if len(found) < k:
            return found  # too few of all but the latest items: with those they would look like enough
        added = self._added
        return np.concatenate([found, added[eligible.keeps(added)]])

    def add(self, vectors: FloatArray) -> None:
        """Know of vectors (n, dim) behind the others; they stay in the process."""
        self.embedded.add(vectors)
        first = len(self.vectors) + len(self._added)
        self._added = np.concatenate([self._added, np.arange(first, first + len(vectors), dtype=np.int32)])

    def save(self, directory: Path) -> None:
        """Write the embedded engine: a bundle never depends on a server."""
        self.embedded.save(directory)

    def _found(self, collection: MilvusCollection, query: FloatArray, k: int, eligible: Eligible) -> IntArray:
        """Return what is near and eligible, of as much as the filter should need, and of all if that was too little."""
        n_asked = _wanted(k, eligible)
        found = collection.search(query, n_asked)
        kept = found[eligible.keeps(found)]
        if len(kept) < k and n_asked < min(MOST_FOUND, len(self.vectors)):
            found = collection.search(query, MOST_FOUND)
            kept = found[eligible.keeps(found)]
        return kept

    def _lose(self, collection: MilvusCollection) -> None:
        """Go on without Milvus and try to reach it again, unless another request has seen to that."""
        with self._losing:
            if self._collection is not collection:
                return
            self._collection = None
        self.start()


def _connect(waiting: "weakref.ref[MilvusEngine]") -> None:
    retry = Retry()
    while (engine := waiting()) is not None and not engine.is_connected:
        uri = engine.settings.uri
        try:
            engine.connect()
        except failures() as error:
            wait_seconds = retry.failed()
            logger.warning("Milvus at %s: %s; next try in %.0f s", uri, str(error), wait_seconds)
        except Exception:
            wait_seconds = retry.failed()
            logger.exception("Milvus at %s cannot be used; next try in %.0f s", uri, wait_seconds)
        else:
            return
        del engine  # a model that was replaced meanwhile is not kept in memory by this
        time.sleep(wait_seconds)


def _wanted(k: int, eligible: Eligible) -> int:
    """Return how many items to ask for, so that k of them should be eligible, and the k nearest among them."""
    n_eligible = max(1, eligible.count())
    n_others, k_and_more = eligible.n_items - n_eligible, math.ceil(SPARE * k) + MORE
    return k_and_more + min(n_others, math.ceil(k_and_more * n_others / n_eligible))


def _client(settings: MilvusSettings) -> "MilvusClient":
    from pymilvus import MilvusClient

    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what fails is told by who asked
    token = os.environ.get(TOKEN_VARIABLE, "")
    return MilvusClient(settings.uri or "", token=token, db_name=settings.database, timeout=CONNECT_SECONDS)
