"""The vectors of one version as a collection of Milvus: made once, by whoever comes first, and read by all."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.utils.logger import get_logger

if TYPE_CHECKING:
    from pymilvus import MilvusClient

PREFIX = "rec_engine_"
CODE, VECTOR = "code", "vector"
ROWS_AT_ONCE = 2_000
"""Rows of one message: 1 MB at 128 numbers a row, of the 64 that Milvus takes."""
MOST_FOUND = 16_384
"""Milvus finds no more in one search."""
PREPARING_SECONDS = 60.0
N_SEARCHES = 8
"""That wait for Milvus at once, at most."""
STALLED_SECONDS = 30.0
"""When the rows have not grown for so long, whoever put them there has ended, and another one goes on."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MilvusCollection:
    """Vectors by code. The name follows from the vectors, so that versions never meet each other's.

    Attributes:
        client: a connection to Milvus.
        vectors: (n, dim) float32, row c is the item with code c.
        seconds: that a call may take.
        sleep: waits for seconds.
        name: of the collection.
    """

    client: "MilvusClient"
    vectors: FloatArray
    seconds: float
    sleep: Callable[[float], None] = time.sleep
    name: str = field(init=False)
    _searches: ThreadPoolExecutor = field(
        init=False, default_factory=lambda: ThreadPoolExecutor(N_SEARCHES, "milvus search")
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", PREFIX + _fingerprint(self.vectors))

    def prepare(self) -> None:
        """Return once all vectors are there and found in time, after a first search, which takes Milvus some seconds.

        Raises:
            Exception: one of `failures` if Milvus cannot be reached, refuses, or is slower than a search may be.
        """
        if self.client.has_collection(self.name):
            self._wait_for_others()
        else:
            self._create()
        if self.n_rows() < len(self.vectors):
            self._fill()
        self.client.load_collection(self.name)
        self.search(self.vectors[0], 1, seconds=PREPARING_SECONDS)
        self.search(self.vectors[0], 1)

    def search(self, query: FloatArray, n: int, *, seconds: float | None = None) -> IntArray:
        """Return (n,) int32 codes of the nearest vectors to a query (dim,), or fewer, in no order.

        Args:
            query: (dim,) float32.
            n: vectors wanted.
            seconds: that it may take, if not as long as any call.

        Raises:
            Exception: one of `failures` if Milvus cannot be reached, refuses, or takes too long.
        """
        seconds = seconds or self.seconds
        # Beside the caller: whatever its timeout is, the client takes as long as it likes to connect again.
        asked = self._searches.submit(
            self.client.search,
            self.name,
            data=[query],
            anns_field=VECTOR,
            limit=min(n, MOST_FOUND),
            output_fields=[CODE],
            search_params={"metric_type": "IP"},
            timeout=seconds,
        )
        try:
            (hits,) = asked.result(seconds)
        except TimeoutError:
            raise TimeoutError(f"no answer in {seconds:g} s") from None
        return np.array(hits.ids, dtype=np.int32)

    def n_rows(self) -> int:
        """Return how many vectors are there.

        Raises:
            Exception: one of `failures` if Milvus cannot be reached or refuses.
        """
        self.client.load_collection(self.name)
        (row,) = self.client.query(self.name, output_fields=["count(*)"], consistency_level="Strong")
        return int(row["count(*)"])

    def _create(self) -> None:
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(CODE, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self.vectors.shape[1])
        index = self.client.prepare_index_params()
        index.add_index(VECTOR, index_type="AUTOINDEX", metric_type="IP")
        self.client.create_collection(self.name, schema=schema, index_params=index)

    def _wait_for_others(self) -> None:
        """Return when the rows are complete, or do not become more."""
        before, since = -1, time.monotonic()
        while (n_rows := self.n_rows()) < len(self.vectors):
            if n_rows > before:
                before, since = n_rows, time.monotonic()
            if time.monotonic() - since > STALLED_SECONDS:
                return
            self.sleep(1.0)

    def _fill(self) -> None:
        """Put all vectors there; those that are there already stay the same."""
        started, n = time.monotonic(), len(self.vectors)
        for first in range(0, n, ROWS_AT_ONCE):
            rows = self.vectors[first : first + ROWS_AT_ONCE]
            self.client.upsert(
                self.name, [{CODE: first + row, VECTOR: vector} for row, vector in enumerate(np.asarray(rows))]
            )
        self.client.flush(self.name)
        logger.info("%d vectors are in Milvus as %s, in %.1f s", n, self.name, time.monotonic() - started)


def failures() -> tuple[type[Exception], ...]:
    """Return what Milvus' client raises where Milvus is the reason: a call that took too long is gRPC's own error."""
    import grpc
    from pymilvus.exceptions import MilvusException

    return MilvusException, grpc.RpcError, grpc.FutureTimeoutError, OSError, ValueError


def _fingerprint(vectors: FloatArray) -> str:
    digest = hashlib.sha256(repr(vectors.shape).encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()[:32]
