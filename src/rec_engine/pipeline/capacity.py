"""How much memory and disk a model of some size takes, by the structures that hold it.

Each part is what its arrays are long, times what an entry of them is wide; OVERHEAD is what the allocator and what was
only needed while loading add to that. `tests/pipeline/test_capacity.py` compares with the structures themselves:
whoever changes one of them changes its line here.
"""

from dataclasses import dataclass

from rec_engine.data.live import MAX_USERS
from rec_engine.models.links import LINKS_AN_ITEM
from rec_engine.retrieval.filters import NARROW
from rec_engine.retrieval.item_attributes import KEPT_ANSWERS
from rec_engine.retrieval.links import LINK_NAMES
from rec_engine.retrieval.term_index import KEPT_TERMS
from rec_engine.serving.live import SPARE_ITEMS, SPARE_SHARE
from rec_engine.utils.service_settings import RedisSettings

INT32, INT64, FLOAT32, VIEW = 4, 8, 4, 16
"""The last one is what polars keeps of each text in a column beside the text."""
MIB = 2**20

PROCESS_BYTES, LIBRARY_BYTES = 170 * MIB, 180 * MIB
"""Of a worker before it has a model: what Python and the libraries allocate, and their code."""
SUPERVISOR_BYTES = 140 * MIB
"""Of the process that watches over several workers."""
OVERHEAD = 1.35
"""What a worker's memory grows by, for each byte that its arrays and tables hold."""
INTERACTION_BYTES = INT32 + INT64 + 1 + FLOAT32 + FLOAT32
"""Item, time, event, value and weight."""
TEXT_ID_BYTES = VIEW + INT64 + INT64 + INT32
"""Of an id that is a text, beside the text twice: its view, where it ends, its hash and its place."""
TABLE_BYTES = INT64 + VIEW + INT64 + VIEW
"""Of an item beside its texts: one number, views of its title and of one category, where its categories begin."""
CATALOGUE_BYTES = INT64 + 2 * INT64 + INT32 + INT32
"""Of an item: where its title ends, where its categories begin, their bits, one of them by item and by category."""
FILTER_BYTES = INT64 + 1 + 1 + 1
"""Of a place for an item: one number, whether it has that, has a category, and is there."""
TITLE_BYTES = 40
"""Of an item's texts at most, held a second time for answers."""
USER_BYTES, USER_FEATURE_BYTES = 2 * (VIEW + 6), 8 * FLOAT32
"""Of a user: two attributes that are short texts, and the features that the tower reads of them."""
KNOWN_BYTES, ORDER_BYTES = INT64 + FLOAT32, INT32 + FLOAT32 + INT32
"""Of a place for an item: where its times begin, its users; the order by these, how often it was met lately, and the
order by that."""
RATES_BYTES = INT64 + 2 * FLOAT32
"""Of a place for an item: where its looks begin, and how often it was looked at and taken for a look."""
LIVE_USER_BYTES = 800
"""Of a user whose history is kept, beside its items."""
DISK_ITEM_BYTES, DISK_USER_BYTES, DISK_TEXT_SHARE = 19, 4, 0.3
"""Of an item and a user whose ids are integers, in Parquet and JSON; and of each byte of text after compression."""
DISK_FIXED_BYTES = 1_500_000
"""Towers, trees and the report."""
EVENT_BYTES = {"SQLite": 125, "PostgreSQL": 240}
"""Of an event without context: its row and its entries in two indexes."""
IMPRESSION_BYTES, SHOWN_BYTES = 145, 33
"""Of an answer that was shown and its entries in two indexes; and of each item on it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be held.

    Attributes:
        n_users: whom the model knows.
        n_items: in the catalogue.
        dim: of the vectors that are searched.
        n_interactions: that the model was trained with.
        embedding_dim: of the items' inputs to the user tower.
        links_an_item: of each of the four kinds, on average.
        text_bytes: of title, description and categories of an item, on average.
        id_bytes: of an id that is a text, on average; 0 for integers.
    """

    n_users: int
    n_items: int
    dim: int
    n_interactions: int
    embedding_dim: int
    links_an_item: float
    text_bytes: int
    id_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of one part of a model.

    Attributes:
        name: for people.
        worker: of each worker's own.
        shared: mapped from files, once for all workers of a machine.
        disk: of the bundle.
    """

    name: str
    worker: float
    shared: float
    disk: float


def usual_links(n_items: int, n_interactions: int) -> float:
    """Return how many links of a kind an item has at most on average: what is met around it each time it is met."""
    return min(LINKS_AN_ITEM, n_items, 20 * n_interactions / n_items)


def parts_of(load: Load) -> list[Part]:
    """Return what a model and the service around it consist of."""
    return [
        Part("process", PROCESS_BYTES, LIBRARY_BYTES, DISK_FIXED_BYTES),
        *_mapped(load),
        *_tables(load),
        *_kept(load),
    ]


def store_parts() -> dict[str, float]:
    """Return bytes in the event store by what is written there."""
    events = {f"events in {engine}": float(n_bytes) for engine, n_bytes in EVENT_BYTES.items()}
    return {**events, "answers of 10 items": IMPRESSION_BYTES + 10 * SHOWN_BYTES}


def _mapped(load: Load) -> list[Part]:
    """Return what is mapped from files; of links, where those of each place for an item begin is a worker's own."""
    vectors = load.n_items * (load.dim + load.embedding_dim) * FLOAT32
    cells = load.n_items * (load.dim + INT32)
    links = len(LINK_NAMES) * load.n_items * (load.links_an_item * (INT32 + FLOAT32) + INT32)
    past = load.n_interactions * INTERACTION_BYTES + load.n_users * INT64
    parts = len(("whole", "train", "validation", "test")) * load.n_users * INT64
    return [
        Part("vectors of items, inputs of the user tower", 0, vectors, vectors),
        Part("index: IVF", 0, cells, cells),
        Part("links between items", OVERHEAD * len(LINK_NAMES) * _places(load) * INT32, links, links),
        Part("history", 0, past, 2 * load.n_interactions * INTERACTION_BYTES + parts),  # whole, and in three parts
    ]


def _tables(load: Load) -> list[Part]:
    """Return what is read from tables or counted at the start."""
    places, id_bytes = _places(load), 2 * load.id_bytes + TEXT_ID_BYTES if load.id_bytes else INT64
    texts = load.text_bytes + min(load.text_bytes, TITLE_BYTES)
    items = load.n_items * (id_bytes + TABLE_BYTES + CATALOGUE_BYTES + texts) + places * FILTER_BYTES
    users = load.n_users * (id_bytes + USER_BYTES)
    features = load.n_users * USER_FEATURE_BYTES
    disk_items = load.n_items * (DISK_ITEM_BYTES + 2 * load.id_bytes + DISK_TEXT_SHARE * load.text_bytes)
    known = load.n_interactions * INT64 + places * KNOWN_BYTES
    return [
        Part("items: ids, texts, attributes", OVERHEAD * items, 0, disk_items),
        Part(
            "users: ids, attributes",
            OVERHEAD * users,
            features,
            features + load.n_users * (DISK_USER_BYTES + load.id_bytes),
        ),
        # As of the training, and as of now once the log has events.
        Part("statistics", OVERHEAD * (2 * known + places * (ORDER_BYTES + RATES_BYTES)), 0, 0),
    ]


def _kept(load: Load) -> list[Part]:
    """Return what is kept of requests, when all places for it are taken."""
    a_history = load.n_interactions / max(1, load.n_users) * (INT32 + FLOAT32 + INT64)
    users = min(load.n_users, MAX_USERS) * (LIVE_USER_BYTES + a_history)
    a_set = _places(load) / 8 + min(_places(load), NARROW) * INT32
    answers = RedisSettings().memory_mebibytes * MIB
    return [
        Part("users of late, when all places are taken", users, 0, 0),
        Part("items that filters found, when all places are taken", (KEPT_ANSWERS + KEPT_TERMS) * a_set, 0, 0),
        Part("cache of answers, when it is full", answers, 0, 0),
    ]


def _places(load: Load) -> int:
    """Return how many items there is room for."""
    return load.n_items + max(SPARE_ITEMS, load.n_items // SPARE_SHARE)
