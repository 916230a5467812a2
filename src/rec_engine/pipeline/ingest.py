"""Files of events into the log: all rows are looked at before the first is written, and twice the same changes nothing.

A file is read two times instead of once into memory: first to judge its rows, then to write them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from rec_engine.data.bulk import BulkWriter
from rec_engine.data.event_table import clean_events, log_rows
from rec_engine.data.rejects import check_rejects, default_rejects, is_settled, together, write_rejects
from rec_engine.data.table_batches import table_batches
from rec_engine.data.validation import Cleaned
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import with_progress


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the rows of some files.

    Attributes:
        store: name of the log, without a password.
        n_rows: of the files.
        n_new: events that the log did not know.
        n_known: events that it knew.
        n_erased: events of users who asked to be forgotten; they are left out.
        n_rejected: rows that cannot be used.
        seconds: it took.
    """

    store: str
    n_rows: int
    n_new: int
    n_known: int
    n_erased: int
    n_rejected: int
    seconds: float


def ingest(
    paths: Sequence[Path],
    store_url: str,
    settings: DataSettings,
    *,
    now: int,
    rejects_path: Path | None = None,
) -> IngestReport:
    """Write the events of files into a log, which may be in use.

    Args:
        paths: CSV, TSV, JSON Lines or Parquet; see `clean_events` for the columns.
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`.
        settings: how rows are read, and how many may be rejected.
        now: Unix seconds; nothing can have happened much later.
        rejects_path: CSV of `file`, `line`, `reason`, `content`, written only when there are rejects.

    Raises:
        DataError: if a file cannot be read, or more than `settings.max_rejected` of its rows are rejected; nothing of
            any file is written then.
        StoreError: if the database fails; the same call goes on where it stopped.
    """
    if not paths:
        raise DataError("there is no file to read events from", hint="rec-engine ingest events.parquet")
    started = time.monotonic()
    rejects_path = rejects_path or default_rejects(paths[0])
    with BulkWriter(store_url) as writer:
        judged = [_judged(path, settings, now) for path in paths]
        write_rejects([(file.path, file.rows) for file in judged], rejects_path)
        for file in judged:
            check_rejects(file.path, file.rows, rejects_path)
        for file in judged:
            for batch in with_progress(table_batches(file.path), f"{file.path.name}: writing", file.n_batches):
                writer.write(log_rows(_cleaned(file.path, batch, settings, now).frame))
        return IngestReport(
            store=writer.name,
            n_rows=sum(file.rows.n_rows for file in judged),
            n_new=writer.n_new,
            n_known=writer.n_known,
            n_erased=writer.n_erased,
            n_rejected=sum(len(file.rows.rejects) for file in judged),
            seconds=time.monotonic() - started,
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    """A file that was looked through: what is wrong with it, without the rows that are good."""

    path: Path
    rows: Cleaned
    n_batches: int


def _judged(path: Path, settings: DataSettings, now: int) -> _Judged:
    found: list[Cleaned] = []
    for batch in with_progress(table_batches(path), f"{path.name}: looking"):
        cleaned = _cleaned(path, batch, settings, now)
        found.append(replace(cleaned, frame=cleaned.frame.clear()))
        whole = together(found)
        if is_settled(whole):
            break
    return _Judged(path, whole, len(found))


def _cleaned(path: Path, batch: pl.DataFrame, settings: DataSettings, now: int) -> Cleaned:
    try:
        return clean_events(batch, settings, now)
    except DataError as error:
        raise DataError(f"{path}: {error}", hint=error.hint) from None
