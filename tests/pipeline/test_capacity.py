"""What `capacity` says of each part is what the structures take, within a fifth."""

import sys
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest
import sqlalchemy
from scipy import sparse

from rec_engine import cli
from rec_engine.bundle import write_history
from rec_engine.data.bulk import BulkWriter
from rec_engine.data.dataset import IdMap, Interactions, RecommendationDataset
from rec_engine.data.events import EventStore, Impression
from rec_engine.data.splits import leave_one_out
from rec_engine.pipeline.capacity import OVERHEAD, Load, Part, parts_of, store_parts, usual_links
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.links import LINK_NAMES, Links
from rec_engine.serving.inference import Knowledge
from rec_engine.utils.config import FaissSettings

N_USERS, N_ITEMS, DIM, N_INTERACTIONS, LINKS = 2_000, 20_000, 16, 100_000, 8
CAPACITY = N_ITEMS + N_ITEMS // 20
LOAD = Load(N_USERS, N_ITEMS, DIM, N_INTERACTIONS, DIM, LINKS, text_bytes=25)


@pytest.fixture(scope="module")
def past() -> RecommendationDataset:
    rng = np.random.default_rng(0)
    rows = {
        "user_id": rng.integers(0, N_USERS, N_INTERACTIONS),
        "item_id": rng.permutation(np.arange(N_INTERACTIONS) % N_ITEMS) + 10**6,
        "timestamp": 1_600_000_000 + np.arange(N_INTERACTIONS),
    }
    items = pl.DataFrame(
        {
            "item_id": np.arange(N_ITEMS) + 10**6,
            "title": [f"Item {item:08}" for item in range(N_ITEMS)],
            "categories": [[f"Category {item % 80}"] for item in range(N_ITEMS)],
            "price": rng.random(N_ITEMS),
        }
    )
    return RecommendationDataset(pl.DataFrame(rows), None, items)


def part(name: str) -> Part:
    return next(found for found in parts_of(LOAD) if name in found.name)


def within_a_fifth(stated: float, measured: float) -> None:
    assert 0.8 < stated / measured < 1.2, (stated, measured)


def links() -> Links:
    indptr = np.arange(CAPACITY + 1, dtype=np.int32).clip(max=N_ITEMS) * LINKS
    indices = np.tile(np.arange(LINKS, dtype=np.int32), N_ITEMS)
    data = np.ones(len(indices), dtype=np.float32)
    return Links(sparse.csr_array((data, indices, indptr), shape=(CAPACITY, CAPACITY)))


def test_index() -> None:
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS, DIM)).astype(np.float32)
    index = FAISSIndex.build(vectors, FaissSettings(index_type="IVF", nlist=32, recall_floor=0.01))
    n_bytes = faiss.serialize_index(index._index).nbytes
    within_a_fifth(part("index").disk, n_bytes)
    within_a_fifth(part("index").worker / OVERHEAD, n_bytes)
    within_a_fifth(part("vectors").shared, 2 * vectors.nbytes)


def test_links_between_items(tmp_path: Path) -> None:
    for name in LINK_NAMES:
        links().save(tmp_path / name)
    within_a_fifth(part("links").disk, sum(file.stat().st_size for file in tmp_path.rglob("*.npy")))


def test_history(past: RecommendationDataset, tmp_path: Path) -> None:
    held = [getattr(past.interactions, name).nbytes for name in Interactions.__slots__]
    within_a_fifth(part("history").worker / OVERHEAD, sum(held))
    write_history(tmp_path / "history.npz", past.interactions, leave_one_out(past.interactions))
    within_a_fifth(part("history").disk, (tmp_path / "history.npz").stat().st_size)


def test_statistics(past: RecommendationDataset) -> None:
    knowledge = Knowledge.of(past.interactions, dict.fromkeys(LINK_NAMES, links()))
    timeline, shares = knowledge.timeline, Catalogue(past.items, CAPACITY).category_shares
    of_links = len(LINK_NAMES) * links().strengths.indptr.nbytes
    order = knowledge.popularity.nbytes
    held = timeline._keys.nbytes + timeline._starts.nbytes + knowledge.popularity.nbytes + order + of_links
    within_a_fifth(part("statistics").worker / OVERHEAD, held + shares.nbytes)


def test_ids(past: RecommendationDataset) -> None:
    held = 0.0
    for ids in (past.item_ids, past.user_ids):
        known = IdMap(ids.ids)
        known.code(0)
        of_entries = sum(2 * sys.getsizeof(each) for each in ids.ids.head(2_000).to_list()) / 2_000 * len(ids)
        in_list = sys.getsizeof(ids.ids.to_list()) + of_entries / 2
        held += sys.getsizeof(known._code_by_id) + of_entries + in_list + 4 * 8 * len(ids)
    within_a_fifth(part("ids").worker / OVERHEAD, held)


def test_tables_of_items_hold_their_texts(past: RecommendationDataset) -> None:
    row = past.items.estimated_size() + past.items["title"].estimated_size()
    assert part("texts").worker / OVERHEAD > row


def test_event_store(store: EventStore) -> None:
    n_events = 40_000
    numbers = pl.int_range(n_events, eager=True)
    events = pl.DataFrame(
        {"timestamp": 1_600_000_000 + numbers, "value": pl.Series([None] * n_events, dtype=pl.Float64)}
    )
    events = events.with_columns(
        event_id=pl.format("{}-{}", pl.col("timestamp"), pl.lit("0123456789abcdef")),
        user_id=(numbers * 7919 % 5_000 + 100_000).cast(pl.String),
        item_id=(numbers % 1_000).cast(pl.String),
        event=pl.lit("click"),
        request_id=pl.lit(None, dtype=pl.String),
        context=pl.lit(None, dtype=pl.String),
    )
    empty = size(store)
    with BulkWriter(store.url) as writer:
        writer.write(events)
    engine = "SQLite" if store.url.startswith("sqlite") else "PostgreSQL"
    loaded = size(store)
    within_a_fifth(store_parts()[f"events in {engine}"], (loaded - empty) / n_events)
    shown = "[" + ",".join(["[10000000,0.12345678901234567,1.0]"] * 10) + "]"
    answer = Impression(
        "7f0c7f0c-7f0c-7f0c-7f0c-7f0c7f0c7f0c", "100000", 1_600_000_000, "20260101-120000-1f3a9c", shown, 0
    )
    for _ in range(8):
        store.write([answer] * 1_000)
    within_a_fifth(store_parts()["answers of 10 items"], (size(store) - loaded) / 8_000)


def size(store: EventStore) -> int:
    """Return the bytes of the log on disk."""
    if store.url.startswith("sqlite"):
        with store._writer.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(store.url.removeprefix("sqlite:///")).stat().st_size
    of_tables = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relname IN ('events', 'impressions')"
    with store._reader.connect() as connection:
        return int(connection.execute(sqlalchemy.text(of_tables)).scalar_one())


def test_links_are_bounded_by_the_catalogue_and_what_was_met() -> None:
    assert usual_links(1_000_000, 4_000_000) == 80
    assert usual_links(1_000, 10_000_000) == 400
    assert usual_links(100, 10_000_000) == 100


def test_the_command_says_what_a_machine_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["capacity", "--users", "100000", "--items", "1000000", "--dim", "64", "--workers", "2"])
    said = capsys.readouterr().out
    assert done.value.code == 0
    assert "links between items" in said
    assert "2 workers take" in said
    with pytest.raises(SystemExit) as stopped:
        cli.main(["capacity", "--users", "0", "--items", "1"])
    assert stopped.value.code == 2
