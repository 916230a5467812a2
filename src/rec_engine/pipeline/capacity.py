"""How much memory and disk a model of some size takes, by the structures that hold it.

Each part is what its arrays are long, times what an entry of them is wide; OVERHEAD is what the allocator and what was
only needed while loading add to that. `tests/pipeline/test_capacity.py` compares with the structures themselves:
whoever changes one of them changes its line here.
"""

from dataclasses import dataclass

from rec_engine.data.live import MAX_USERS
from rec_engine.models.links import LINKS_AN_ITEM
from rec_engine.retrieval.categories import MAX_CATEGORIES
from rec_engine.retrieval.links import LINK_NAMES
from rec_engine.serving.live import SPARE_ITEMS, SPARE_SHARE

INT32, INT64, FLOAT32 = 4, 8, 4
MIB = 2**20

PROCESS_BYTES, LIBRARY_BYTES = 190 * MIB, 120 * MIB
"""Of a worker before it has a model: what Python and the libraries allocate, and their code."""
OVERHEAD = 1.35
"""What a worker's memory grows by, for each byte that its arrays and tables hold."""
INTERACTION_BYTES = INT32 + INT64 + 1 + FLOAT32 + FLOAT32
"""Item, time, event, value and weight."""
TIMELINE_BYTES = INT64
"""Of each positive interaction: its key of item and time."""
ID_BYTES, ID_PLACES = 145, 4
"""Of an id: its entry in the map to codes, its object, its place in a list; and the columns of 8 bytes it stands in."""
ATTRIBUTE_BYTES = 60
"""Of an item: one number, its categories, where they begin, and what filters search them by."""
ROW_BYTES = 40
"""Of an item's row beside its text: id, one number, views of texts."""
STATISTICS_BYTES = 40
"""Of an item: popularity, its order, where its times and its links begin."""
DISK_ID_BYTES, DISK_TEXT_SHARE = 20, 0.3
"""Of an id and its row in Parquet and JSON, and of each byte of text after compression."""
DISK_FIXED_BYTES = 1_500_000
"""Towers, trees and the report."""
LIVE_USER_BYTES = 800
"""Of a user whose history is kept, beside its items."""
EVENT_BYTES = {"SQLite": 125, "PostgreSQL": 210}
"""Of an event without context: its row and its entries in two indexes."""
IMPRESSION_BYTES, SHOWN_BYTES = 270, 33
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
    """

    n_users: int
    n_items: int
    dim: int
    n_interactions: int
    embedding_dim: int
    links_an_item: float
    text_bytes: int


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
    n_items = load.n_items + max(SPARE_ITEMS, load.n_items // SPARE_SHARE)
    vectors, inputs = load.n_items * load.dim * FLOAT32, load.n_items * load.embedding_dim * FLOAT32
    cells = load.n_items * (load.dim * FLOAT32 + INT64)
    links = len(LINK_NAMES) * load.n_items * (load.links_an_item * (INT32 + FLOAT32) + INT32)
    past, timeline = load.n_interactions * INTERACTION_BYTES, load.n_interactions * TIMELINE_BYTES
    ids = (load.n_items + load.n_users) * (ID_BYTES + ID_PLACES * INT64)
    texts = load.n_items * load.text_bytes
    table = load.n_items * (ROW_BYTES + ATTRIBUTE_BYTES)
    of_items = n_items * (STATISTICS_BYTES + MAX_CATEGORIES * FLOAT32)
    a_history = load.n_interactions / max(1, load.n_users) * (INT32 + FLOAT32 + INT64)
    users = min(load.n_users, MAX_USERS) * (LIVE_USER_BYTES + a_history)
    disk_ids = (load.n_items + load.n_users) * DISK_ID_BYTES
    return [
        Part("process", PROCESS_BYTES, LIBRARY_BYTES, DISK_FIXED_BYTES),
        Part("vectors of items, inputs of the user tower", 0, vectors + inputs, vectors + inputs),
        Part("index", OVERHEAD * cells, 0, cells),
        Part("ids", OVERHEAD * ids, 0, disk_ids),
        Part("texts and attributes", OVERHEAD * (2 * texts + table), 0, DISK_TEXT_SHARE * texts),
        Part("links between items", 0, links, links),
        Part("history", OVERHEAD * past, 0, 2 * past),  # whole, and in the parts that were trained and tested on
        Part("statistics", OVERHEAD * (timeline + of_items), 0, 0),
        Part("users of late, when all places are taken", users, 0, 0),
    ]


def store_parts() -> dict[str, float]:
    """Return bytes in the event store by what is written there."""
    events = {f"events in {engine}": float(n_bytes) for engine, n_bytes in EVENT_BYTES.items()}
    return {**events, "answers of 10 items": IMPRESSION_BYTES + 10 * SHOWN_BYTES}
