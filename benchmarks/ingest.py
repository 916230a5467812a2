"""How fast events of files get into the event store, beside the other ways of getting them there.

    python benchmarks/ingest.py [--rows 1000000] [--other-rows 100000] [--turns 3] [--store URL ...]

A shop's events (Zipf items, users a tenth of the events, in the order of time) are written as Parquet, JSON Lines and
CSV and ingested into an empty SQLite file, and into every other store that is named, by `pipeline.ingest.ingest` as the
command does it: read twice, judged, with ids. In the same run, on fewer rows, each into a new SQLite file:

- one by one: `EventStore.write` in batches of 1,000, the most that one POST of /feedback/batch brings;
- pandas: `read_parquet` and `to_sql(method=None, chunksize=10_000)` into a table with the same indexes. It judges
  nothing, knows no event twice and leaves positions to the row number.

Printed is the median over the turns by the clock and by the processor's time of this process (what PostgreSQL works is
not in it); a ratio is ours over the other's.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import polars as pl
import sqlalchemy
from account import commit, machine

from rec_engine.data.database import event_rows, tables
from rec_engine.data.event_table import clean_events, log_rows
from rec_engine.data.events import Event, EventStore
from rec_engine.pipeline.ingest import ingest
from rec_engine.utils.config import DataSettings

NOW = 1_800_000_000
POSTED = 1_000
LIBRARIES = ("polars", "sqlalchemy", "psycopg", "pandas")


@dataclass(frozen=True, slots=True)
class Rate:
    """Rows a second, by the clock and by the processor."""

    wall: float
    cpu: float


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--other-rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--store", action="append", default=[], help="a PostgreSQL URL; its events are deleted")
    arguments = parser.parse_args()
    print(f"{machine(LIBRARIES)}; {commit()}\n")
    print("| what | rows/s | rows/s of CPU | ours from Parquet over it, clock | CPU |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        work = Path(name)
        files = _written(_events(arguments.rows), work)
        few = _written(_events(arguments.other_rows), work / "few")
        ways: dict[str, tuple[Callable[[str], None], int, str]] = {
            f"ingest, {path.suffix[1:]}, SQLite": (_ingesting(path), arguments.rows, "") for path in files
        }
        for url in arguments.store:
            ways |= {
                f"ingest, {path.suffix[1:]}, PostgreSQL": (_ingesting(path), arguments.rows, url) for path in files
            }
        ways["EventStore.write, 1,000 at a time"] = (_posting(few[0]), arguments.other_rows, "")
        ways["pandas.to_sql"] = (_with_pandas(few[0]), arguments.other_rows, "")
        rates = {name: _rate(way, n_rows, arguments.turns, url, work) for name, (way, n_rows, url) in ways.items()}
    ours = next(iter(rates.values()))
    for name, rate in rates.items():
        print(
            f"| {name} | {rate.wall:,.0f} | {rate.cpu:,.0f} | {ours.wall / rate.wall:.1f} | {ours.cpu / rate.cpu:.1f} |"
        )


def _events(n_rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, max(1, n_rows // 10), n_rows),
            "item_id": rng.zipf(1.3, n_rows) % 50_000,
            "timestamp": np.sort(rng.integers(1_600_000_000, 1_700_000_000, n_rows)),
            "event": rng.choice(["view", "click", "add_to_cart", "purchase"], n_rows, p=[0.7, 0.2, 0.06, 0.04]),
        }
    )


def _written(events: pl.DataFrame, directory: Path) -> list[Path]:
    directory.mkdir(exist_ok=True)
    events.write_parquet(directory / "events.parquet")
    events.write_ndjson(directory / "events.jsonl")
    events.write_csv(directory / "events.csv")
    return [directory / f"events.{kind}" for kind in ("parquet", "jsonl", "csv")]


def _rate(way: Callable[[str], None], n_rows: int, turns: int, url: str, work: Path) -> Rate:
    wall, cpu = [], []
    for turn in range(turns):
        store = _emptied(url) if url else f"sqlite:///{work / f'{turn}.db'}"
        started, worked = time.perf_counter(), time.process_time()
        way(store)
        wall.append(n_rows / (time.perf_counter() - started))
        cpu.append(n_rows / (time.process_time() - worked))
        if not url:
            for file in work.glob(f"{turn}.db*"):
                file.unlink()
    return Rate(statistics.median(wall), statistics.median(cpu))


def _emptied(url: str) -> str:
    EventStore(url).close()
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("TRUNCATE events"))
    engine.dispose()
    return url


def _ingesting(path: Path) -> Callable[[str], None]:
    return lambda store: _check(ingest([path], store, DataSettings(), now=NOW).n_new)


def _check(n_new: int) -> None:
    if not n_new:
        raise SystemExit("nothing was written")


def _posting(path: Path) -> Callable[[str], None]:
    def post(store: str) -> None:
        log = EventStore(store)
        table = pl.read_parquet(path)
        for batch in log_rows(clean_events(table, DataSettings(), NOW).frame).iter_slices(POSTED):
            log.write([Event(**row) for row in batch.to_dicts()])
        log.close()

    return post


def _with_pandas(path: Path) -> Callable[[str], None]:
    def write(store: str) -> None:
        engine = sqlalchemy.create_engine(store)
        tables.create_all(engine)
        frame = pd.read_parquet(path)
        frame = frame.astype({"user_id": str, "item_id": str})
        frame["event_id"] = frame.index.astype(str)
        frame["position"] = frame.index + 1
        frame.to_sql(event_rows.name, engine, if_exists="append", index=False, chunksize=10_000)
        engine.dispose()

    return write


if __name__ == "__main__":
    main()
