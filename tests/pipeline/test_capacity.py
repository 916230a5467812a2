"""What `capacity` says of each part is what the structures take, within a fifth."""

import json
import tracemalloc
from collections.abc import Iterator, Mapping
from mmap import mmap
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sqlalchemy
from scipy import sparse

from rec_engine import cli
from rec_engine.bundle import read_interactions, write_history
from rec_engine.data.bulk import BulkWriter
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.item_looks import ItemLooks
from rec_engine.data.live import LiveHistories
from rec_engine.data.splits import leave_one_out
from rec_engine.data.state import state_of
from rec_engine.data.take_rates import TakeRates
from rec_engine.pipeline.capacity import OVERHEAD, Load, Part, parts_of, store_parts, usual_links
from rec_engine.retrieval.candidates import PopularitySource, RecentPopularitySource
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.item_attributes import KEPT_ANSWERS, ItemAttributes
from rec_engine.retrieval.links import LINK_NAMES, Links
from rec_engine.retrieval.predicates import Range
from rec_engine.retrieval.term_index import KEPT_TERMS
from rec_engine.serving.inference import Knowledge
from rec_engine.utils.config import DataSettings, FaissSettings

N_USERS, N_ITEMS, DIM, N_INTERACTIONS, LINKS = 2_000, 20_000, 16, 100_000, 8
CAPACITY = N_ITEMS + N_ITEMS // 20
BEGIN = 1_600_000_000
TEXT_BYTES = len("Item 00012345 of the shop") + len("Category 12")
ID_BYTES = len("sku-1012345")
LOAD = Load(N_USERS, N_ITEMS, DIM, N_INTERACTIONS, DIM, LINKS, TEXT_BYTES)
VIEW = 16
"""What polars keeps of each text beside the text; its own estimate leaves it out."""


def a_past(prefix: str) -> RecommendationDataset:
    """Return data whose ids are texts where there is something before their numbers."""
    rng = np.random.default_rng(0)
    item_ids = pl.Series("item_id", np.arange(N_ITEMS) + 10**6)
    if prefix:
        item_ids = pl.select(pl.format(prefix + "{}", item_ids)).to_series().alias("item_id")
    met = rng.permutation(np.arange(N_INTERACTIONS) % N_ITEMS)
    rows = pl.DataFrame([pl.Series("user_id", rng.integers(0, N_USERS, N_INTERACTIONS)), item_ids[met]])
    items = pl.DataFrame(
        {
            "item_id": item_ids,
            "title": [f"Item {item:08} of the shop" for item in range(N_ITEMS)],
            "categories": [[f"Category {item % 80:02}"] for item in range(N_ITEMS)],
            "price": rng.random(N_ITEMS),
        }
    )
    return RecommendationDataset(rows.with_columns(timestamp=BEGIN + np.arange(N_INTERACTIONS)), None, items)


@pytest.fixture(scope="module")
def past() -> RecommendationDataset:
    return a_past("")


def part(name: str, load: Load = LOAD) -> Part:
    return next(found for found in parts_of(load) if found.name.startswith(name))


def within_a_fifth(stated: float, measured: float) -> None:
    assert 0.8 < stated / measured < 1.2, (stated, measured)


def on_disk(*paths: Path) -> int:
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


def held(*roots: object) -> tuple[int, int]:
    """Return the bytes that these objects hold themselves, and those that they map from files."""
    own = mapped = 0
    for thing in {id(thing): thing for root in roots for thing in reached(root)}.values():
        if isinstance(thing, np.ndarray):
            own += thing.nbytes if thing.base is None else 0
            mapped += thing.nbytes if isinstance(thing.base, mmap) else 0
        elif isinstance(thing, bytes):
            own += len(thing)
        elif isinstance(thing, pl.DataFrame):
            n_texts = sum(cells.len() for cells in thing.select(pl.col(pl.String)))
            n_texts += sum(cells.explode().len() for cells in thing.select(pl.col(pl.List(pl.String))))
            own += int(thing.estimated_size()) + VIEW * n_texts
    return own, mapped


def reached(root: object) -> Iterator[object]:
    """Yield an object and what its attributes and those of theirs are, arrays' owners included."""
    known, waiting = {}, [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in known:
            continue
        known[id(thing)] = thing
        yield thing
        if isinstance(thing, np.ndarray):
            waiting.append(thing.base)
        elif isinstance(thing, Mapping):
            waiting.extend(thing.values())
        elif isinstance(thing, list | tuple):
            waiting.extend(thing)
        elif type(thing).__module__.startswith(("rec_engine", "scipy")):
            slots = (name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()))
            waiting.extend(getattr(thing, name, None) for name in (*slots, *getattr(thing, "__dict__", {})))


def links() -> Links:
    indptr = np.arange(N_ITEMS + 1, dtype=np.int32) * LINKS
    indices = np.tile(np.arange(LINKS, dtype=np.int32), N_ITEMS)
    data = np.ones(len(indices), dtype=np.float32)
    return Links(sparse.csr_array((data, indices, indptr), shape=(N_ITEMS, N_ITEMS)))


def test_vectors_and_index(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS, DIM)).astype(np.float32)
    settings = FaissSettings(index_type="IVF", nlist=32, recall_floor=0.01)
    FAISSIndex.build(vectors, settings).save(tmp_path / "index")
    index = FAISSIndex.load(tmp_path / "index").with_room(CAPACITY)
    own, mapped = held(index)
    assert own < 0.02 * mapped
    within_a_fifth(part("index").shared, mapped - vectors.nbytes)
    within_a_fifth(part("index").disk, on_disk(tmp_path / "index" / "engine"))
    within_a_fifth(part("vectors").shared, 2 * on_disk(tmp_path / "index" / "vectors.npy"))


def test_links_between_items(tmp_path: Path) -> None:
    loaded = []
    for name in LINK_NAMES:
        links().save(tmp_path / name)
        loaded.append(Links.load(tmp_path / name).widened(CAPACITY))
    own, mapped = held(loaded)
    within_a_fifth(part("links").worker / OVERHEAD, own)
    within_a_fifth(part("links").shared, mapped)
    within_a_fifth(part("links").disk, on_disk(tmp_path))


def test_history(past: RecommendationDataset, tmp_path: Path) -> None:
    write_history(tmp_path / "history", past.interactions, leave_one_out(past.interactions))
    own, mapped = held(read_interactions(tmp_path / "history", "history"))
    assert own == 0 == part("history").worker
    within_a_fifth(part("history").shared, mapped)
    within_a_fifth(part("history").disk, on_disk(tmp_path))


def test_statistics(past: RecommendationDataset) -> None:
    widened = dict.fromkeys(LINK_NAMES, links().widened(CAPACITY))
    trained = Knowledge.of(past.interactions, widened)
    timeline = trained.timeline.then(np.zeros(1, dtype=np.int32), np.array([trained.timeline.end]))
    popularity, recent = PopularitySource(trained.popularity + 1), RecentPopularitySource(timeline)
    recent.ask(state_of(past.interactions, 0, timeline.end))
    one = np.zeros(1, dtype=np.int32)
    rates = TakeRates(ItemLooks(one, one, np.ones(1)), timeline)
    rates.make_ready(timeline.end)
    own, _ = held(trained, timeline, popularity, recent, rates)
    within_a_fifth(part("statistics").worker / OVERHEAD, own - held(widened)[0])


@pytest.mark.parametrize(("prefix", "id_bytes"), [("", 0), ("sku-", ID_BYTES)])
def test_items(prefix: str, id_bytes: int, tmp_path: Path) -> None:
    items = a_past(prefix).items
    catalogue = Catalogue(items, CAPACITY)
    assert catalogue.code(items["item_id"][7]) == 7  # what finds ids is made when the first is looked for
    stated = part("items: ids", Load(N_USERS, N_ITEMS, DIM, N_INTERACTIONS, DIM, LINKS, TEXT_BYTES, id_bytes))
    within_a_fifth(stated.worker / OVERHEAD, held(catalogue, items)[0])


def test_items_on_disk_without_their_texts(past: RecommendationDataset, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text(json.dumps(past.item_ids.ids.to_list()), encoding="utf-8")
    np.save(tmp_path / "alive.npy", np.ones(N_ITEMS, dtype=np.bool_))
    past.items.select("item_id", "price").write_parquet(tmp_path / "items.parquet")
    without = Load(N_USERS, N_ITEMS, DIM, N_INTERACTIONS, DIM, LINKS, text_bytes=0)
    within_a_fifth(part("items: ids", without).disk, on_disk(tmp_path))


@pytest.mark.parametrize("id_bytes", [0, ID_BYTES])
def test_users(id_bytes: int) -> None:
    ids = pl.Series("user_id", np.arange(N_USERS) + 10**6)
    ids = pl.select(pl.format("sku-{}", ids)).to_series().alias("user_id") if id_bytes else ids
    of_users = {"country": ["Norway", "Chad"] * (N_USERS // 2), "age_group": ["adult", "18-49"] * (N_USERS // 2)}
    users = pl.DataFrame([ids]).with_columns(**{name: pl.Series(texts) for name, texts in of_users.items()})
    rows = pl.DataFrame({"user_id": ids, "item_id": 1, "timestamp": BEGIN})
    past = RecommendationDataset(rows, users, None)
    assert past.user_ids.code(ids[7]) == 7
    stated = part("users: ids", Load(N_USERS, N_ITEMS, DIM, N_INTERACTIONS, DIM, LINKS, TEXT_BYTES, id_bytes))
    within_a_fifth(stated.worker / OVERHEAD, held(past.users, past.user_ids)[0])


def test_users_of_late(past: RecommendationDataset, tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    asked = range(300)
    store.write([Event(f"e{user}", str(user), "1000000", "click", BEGIN + 10**6) for user in asked])
    histories = LiveHistories(
        past.interactions, past.user_ids, lambda _: 0, settings=DataSettings(), store=store, since=0
    )
    histories.user("none")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for user in asked:
        histories.user(str(user))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    store.close()
    within_a_fifth(part("users of late").worker, grown / len(asked) * N_USERS)


def test_items_that_filters_found(past: RecommendationDataset) -> None:
    attributes = ItemAttributes.of(past.items, CAPACITY)
    before, _ = held(attributes, *attributes._answers._kept.values())
    for dearer in np.linspace(0.76, 0.8, KEPT_ANSWERS + 10).tolist():
        attributes.matching(Range(attribute="price", above=dearer))
    kept = list(attributes._answers._kept.values())
    assert len(kept) == KEPT_ANSWERS
    found, _ = held(attributes, *kept)
    within_a_fifth(part("items that").worker, (found - before) / KEPT_ANSWERS * (KEPT_ANSWERS + KEPT_TERMS))


def test_event_store(store: EventStore) -> None:
    n_events = 40_000
    numbers = pl.int_range(n_events, eager=True)
    events = pl.DataFrame({"timestamp": BEGIN + numbers, "value": pl.Series([None] * n_events, dtype=pl.Float64)})
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
    answer = Impression("7f0c7f0c-7f0c-7f0c-7f0c-7f0c7f0c7f0c", "100000", BEGIN, "20260101-120000-1f3a9c", shown, 0)
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
    assert stopped.value.code == 3
