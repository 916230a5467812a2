"""Searches that go to Milvus find what the process would find, filters included, and go on without it."""

import gc
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import ConfigError
from rec_engine.retrieval import milvus_engine
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.milvus_collection import MilvusCollection
from rec_engine.retrieval.milvus_engine import MilvusEngine, in_milvus
from rec_engine.utils.config import FaissSettings
from rec_engine.utils.service_settings import MilvusSettings

N, DIM = 6_000, 12
PATIENCE_SECONDS = 60.0


@dataclass
class Milvus:
    """A server of Milvus Lite: the cluster's API over TCP."""

    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> MilvusSettings:
        return MilvusSettings(uri=f"http://127.0.0.1:{self.port}", timeout_ms=20_000)

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(self.data)]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Milvus]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Milvus(tmp_path_factory.mktemp("milvus"), port)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.data)


@pytest.fixture(scope="module")
def embedded() -> FAISSIndex:
    return FAISSIndex.build(vectors_of(N), FaissSettings(index_type="Flat"))


@pytest.fixture(scope="module")
def served(milvus: Milvus, embedded: FAISSIndex) -> FAISSIndex:
    index = in_milvus(embedded, milvus.settings)
    wait_until(lambda: engine_of(index).is_connected)
    return index


def vectors_of(n: int, seed: int = 0) -> FloatArray:
    """Of length one, as the towers'."""
    drawn = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    unit: FloatArray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def engine_of(index: FAISSIndex) -> MilvusEngine:
    engine = index._engine
    assert isinstance(engine, MilvusEngine)
    return engine


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < until, "it has not happened in a minute"
        time.sleep(0.05)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.4, 0.05])
def test_milvus_fills_the_answer_inside_any_filter_as_the_process_does(
    embedded: FAISSIndex, served: FAISSIndex, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    mask = np.random.default_rng(3).random(N) < share
    wide = Eligible(np.packbits(mask, bitorder="little"), N)  # without codes, so that the engine is asked
    queries = vectors_of(4, seed=5)
    expected = embedded.search(queries, 50, wide)
    monkeypatch.setattr(type(embedded._engine), "near", None)  # whoever asks it now fails
    scores, codes = served.search(queries, 50, wide)
    assert mask[codes].all()
    assert (np.diff(scores) <= 0).all()
    # Milvus' own index is not exact: what it finds has its exact score, and nearly everything is found.
    found = [np.isin(row, wanted).mean() for row, wanted in zip(codes, expected[1], strict=True)]
    assert np.mean(found) > 0.95


def test_a_filter_against_the_query_is_answered_whole(embedded: FAISSIndex, served: FAISSIndex) -> None:
    query = vectors_of(1, seed=9)[0]
    farthest = np.argsort(embedded.vectors @ query)[: N // 5]
    mask = np.zeros(N, dtype=np.bool_)
    mask[farthest] = True
    wide = Eligible(np.packbits(mask, bitorder="little"), N)
    assert np.array_equal(served.nearest(query, 30, wide)[1], embedded.nearest(query, 30, wide)[1])


def test_an_item_that_came_since_is_found(milvus: Milvus) -> None:
    index = in_milvus(FAISSIndex.build(vectors_of(N), FaissSettings(index_type="Flat")), milvus.settings)
    wait_until(lambda: engine_of(index).is_connected)
    new = 10 * vectors_of(1, seed=11)
    index.append(new)
    assert index.nearest(new[0], 3)[1][0] == N


def test_items_that_came_since_do_not_hide_that_milvus_found_too_few(
    embedded: FAISSIndex, served: FAISSIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_engine, "MOST_FOUND", 0)  # as where the nearest 16,384 are all filtered out
    query = vectors_of(1, seed=9)[0]
    alone = FAISSIndex.build(embedded.vectors, FaissSettings(index_type="Flat")).with_room(N + 100)
    engine = MilvusEngine(alone._engine, alone.vectors, engine_of(served).settings, engine_of(served)._collection)
    by_score = np.argsort(embedded.vectors @ query)
    mask = np.zeros(N + 100, dtype=np.bool_)
    mask[by_score[: N // 5]] = mask[N:] = True
    wide = Eligible(np.packbits(mask, bitorder="little"), N + 100)
    alone.append(np.repeat(embedded.vectors[by_score[:1]], 100, axis=0))
    expected = alone.nearest(query, 30, wide)[1]
    engine._added = np.arange(N, N + 100, dtype=np.int32)
    assert np.array_equal(alone.searched_by(lambda _: engine).nearest(query, 30, wide)[1], expected)


def test_two_who_come_at_once_leave_every_vector_there_once(milvus: Milvus) -> None:
    vectors = vectors_of(5_000, seed=20)
    collections = [MilvusCollection(MilvusClient(milvus.settings.uri or ""), vectors, 20.0) for _ in range(2)]
    collections[0]._create()  # the first one was stopped before it had put anything there
    collections[1]._fill()
    collections[0].prepare()
    assert collections[1].n_rows() == len(vectors)
    assert collections[0].name == collections[1].name
    assert set(collections[0].search(vectors[7], 3).tolist()) == set(collections[1].search(vectors[7], 3).tolist())


def test_answers_go_on_while_milvus_is_away_and_return_to_it(
    milvus: Milvus, embedded: FAISSIndex, served: FAISSIndex, caplog: pytest.LogCaptureFixture
) -> None:
    query = vectors_of(1, seed=30)[0]
    expected = embedded.nearest(query, 20)[1]
    quick = MilvusSettings(uri=milvus.settings.uri, timeout_ms=500)
    index = in_milvus(embedded, quick)
    wait_until(lambda: engine_of(index).is_connected)
    milvus.stop(signal.SIGKILL)
    assert np.array_equal(index.nearest(query, 20)[1], expected)
    assert not engine_of(index).is_connected
    assert "the process searches itself" in caplog.text
    milvus.start()
    wait_until(lambda: engine_of(index).is_connected)
    assert np.array_equal(index.nearest(query, 20)[1], expected)
    assert np.array_equal(served.nearest(query, 20)[1], expected)
    wait_until(lambda: engine_of(served).is_connected)


def test_a_milvus_that_hangs_breaks_no_request(milvus: Milvus, embedded: FAISSIndex) -> None:
    query = vectors_of(1, seed=31)[0]
    index = in_milvus(embedded, MilvusSettings(uri=milvus.settings.uri, timeout_ms=500))
    wait_until(lambda: engine_of(index).is_connected)
    assert milvus.process is not None
    milvus.process.send_signal(signal.SIGSTOP)
    try:
        assert np.array_equal(index.nearest(query, 20)[1], embedded.nearest(query, 20)[1])
        assert not engine_of(index).is_connected
    finally:
        milvus.process.send_signal(signal.SIGCONT)
    wait_until(lambda: engine_of(index).is_connected)


def test_a_client_that_takes_its_time_is_waited_for_no_longer_than_it_was_given(
    milvus: Milvus, embedded: FAISSIndex, served: FAISSIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does to connect again, when the connection breaks while it is asked."""
    client, is_over = MilvusClient(milvus.settings.uri or ""), threading.Event()
    monkeypatch.setattr(client, "search", lambda *_, **__: is_over.wait(PATIENCE_SECONDS))
    index = embedded.searched_by(
        lambda engine: MilvusEngine(
            engine, embedded.vectors, milvus.settings, MilvusCollection(client, embedded.vectors, 0.1)
        )
    )
    started, query = time.monotonic(), vectors_of(1, seed=32)[0]
    assert np.array_equal(index.nearest(query, 20)[1], embedded.nearest(query, 20)[1])
    assert time.monotonic() - started < PATIENCE_SECONDS / 2
    is_over.set()


def test_a_milvus_that_is_too_slow_for_a_search_is_not_searched(
    milvus: Milvus, embedded: FAISSIndex, served: FAISSIndex, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(served)  # its vectors are there
    index = in_milvus(embedded, MilvusSettings(uri=milvus.settings.uri, timeout_ms=1))
    wait_until(lambda: "no answer in 0.001 s; next try" in caplog.text)  # an earlier test's engine may log meanwhile
    assert not engine_of(index).is_connected


def test_an_error_that_nobody_foresaw_does_not_end_the_tries(
    milvus: Milvus, embedded: FAISSIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of, n_tries = milvus_engine._client, 0

    def fails_once(settings: MilvusSettings) -> MilvusClient:
        nonlocal n_tries
        n_tries += 1
        if n_tries == 1:
            raise KeyError("nobody")
        return client_of(settings)

    monkeypatch.setattr(milvus_engine, "_client", fails_once)
    index = in_milvus(embedded, milvus.settings)
    wait_until(lambda: engine_of(index).is_connected)
    assert n_tries == 2


def test_a_model_that_was_replaced_while_milvus_is_away_is_not_kept(
    embedded: FAISSIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: MilvusSettings) -> MilvusClient:
        raise OSError("away")

    monkeypatch.setattr(milvus_engine, "_client", refuse)
    index = in_milvus(embedded, MilvusSettings(uri="http://localhost:19530"))
    wait_until(lambda: "next try" in caplog.text)
    engine = weakref.ref(engine_of(index))
    del index
    wait_until(lambda: gc.collect() >= 0 and engine() is None)


def test_without_the_client_the_setting_is_refused(embedded: FAISSIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as refused:
        in_milvus(embedded, MilvusSettings(uri="http://localhost:19530"))
    assert "rec-engine[milvus]" in refused.value.hint
