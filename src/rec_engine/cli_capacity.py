"""`rec-engine capacity`: what a model and a service of some size need, before there is either."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rec_engine.cli_output import AsJson, print_json
from rec_engine.errors import ConfigError
from rec_engine.utils.console import say, show

MIB, GIB = 2**20, 2**30
USUAL_INTERACTIONS, USUAL_TEXT = 50, 100


def capacity(  # noqa: PLR0913 - one for each thing that grows
    *,
    users: int,
    items: int,
    dim: int = 64,
    interactions: int | None = None,
    workers: int = 4,
    embedding_dim: int = 128,
    links: float | None = None,
    text_bytes: int = USUAL_TEXT,
    id_bytes: int = 0,
    as_json: AsJson = False,
) -> None:
    """State the memory of a worker and of the machine, and the disk of a model and of the event store, by part.

    Args:
        users: whom the model knows.
        items: in the catalogue.
        dim: of the vectors that are searched: the last of model.tower_dims.
        interactions: that the model is trained with; 50 a user without it.
        workers: api.workers.
        embedding_dim: model.embedding_dim.
        links: of each of the four kinds that an item has on average, at most 400; without it as many as there may be.
        text_bytes: of title, description and categories of an item on average.
        id_bytes: of an id that is a text on average; 0 for integers.
        as_json: print bytes by part for programs.
    """
    from rec_engine.pipeline.capacity import SUPERVISOR_BYTES, Load, parts_of, store_parts, usual_links

    n_interactions = USUAL_INTERACTIONS * users if interactions is None else interactions
    if min(users, items, dim, workers, embedding_dim) < 1 or min(n_interactions, text_bytes, id_bytes, links or 0) < 0:
        raise ConfigError("--users, --items, --dim and --workers are at least 1, nothing is below 0")
    links = usual_links(items, n_interactions) if links is None else links
    load = Load(users, items, dim, n_interactions, embedding_dim, links, text_bytes, id_bytes)
    parts = parts_of(load)
    if as_json:
        print_json({"parts": parts, "store_bytes_each": store_parts()})
        return
    table = Table(title=f"{users:,} users, {items:,} items, {n_interactions:,} interactions", box=SIMPLE_HEAD)
    for column in ("MiB of", "each worker", "all workers together", "a version on disk"):
        table.add_column(column, justify="left" if column == "MiB of" else "right", no_wrap=True)
    for part in parts:
        table.add_row(part.name, *(f"{size / MIB:,.0f}" for size in (part.worker, part.shared, part.disk)))
    worker, shared, disk = (sum(getattr(part, name) for part in parts) for name in ("worker", "shared", "disk"))
    together = workers * worker + shared + SUPERVISOR_BYTES * (workers > 1)
    table.add_section()
    table.add_row("sum", *(f"{size / MIB:,.0f}" for size in (worker, shared, disk)))
    show(table)
    for name, n_bytes in store_parts().items():
        say(f"event store, each million {name}: {n_bytes * 1_000_000 / MIB:,.0f} MiB")
    say(
        f"A worker takes {(worker + shared) / GIB:.1f} GiB, of which {shared / GIB:.1f} GiB are the same for all; "
        f"{workers} workers take {together / GIB:.1f} GiB, a version {disk / GIB:.1f} GiB of disk. "
        f"Next: rec-engine serve --workers {workers}."
    )
