"""Rows that cannot be used: listed in a file for people, and refused where they are too many."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from rec_engine.data.validation import Cleaned, remedy
from rec_engine.errors import DataError

MAX_REJECTS = 100_000
"""So many bad rows, if they are too large a share of those before them, settle it for the rest of the data."""

log = logging.getLogger(__name__)


def together(parts: Sequence[Cleaned]) -> Cleaned:
    """Return what there is to say of the parts of one table, without the rows that are good."""
    return replace(
        parts[0],
        frame=parts[0].frame.clear(),
        rejects=pl.concat([part.rejects for part in parts]),
        n_rows=sum(part.n_rows for part in parts),
        n_duplicates=sum(part.n_duplicates for part in parts),
    )


def is_settled(whole: Cleaned) -> bool:
    """Return whether a table will not be accepted, whatever comes after these rows of it."""
    return len(whole.rejects) > MAX_REJECTS and not whole.is_acceptable


def default_rejects(path: Path) -> Path:
    """Return where the rejects of a file go if nobody says where: into the current directory."""
    return Path(f"{Path(path.name.removesuffix('.gz')).stem}.rejects.csv")


def write_rejects(given: Sequence[tuple[Path, Cleaned]], rejects_path: Path) -> None:
    """Write all rejects to one file that is complete whenever it is there, and none where there are no rejects.

    Raises:
        DataError: if it cannot be written.
    """
    rejects = pl.concat(
        table.rejects.select(file=pl.lit(str(path)), line="row", reason="reason", content="content")
        for path, table in given
    )
    if rejects.is_empty():
        return
    unfinished = rejects_path.with_name(f"{rejects_path.name}.part")
    try:
        rejects.write_csv(unfinished)
        unfinished.replace(rejects_path)
    except OSError as error:
        raise DataError(f"{rejects_path}: cannot be written: {error}", hint="give another --rejects path") from None
    log.warning("%s rejected rows are in %s", f"{len(rejects):,}", rejects_path)


def check_rejects(path: Path, table: Cleaned, rejects_path: Path) -> None:
    """Refuse a file of which too much was rejected.

    Raises:
        DataError: naming the first bad row.
    """
    if table.is_acceptable:
        return
    first = table.rejects.row(0, named=True)
    rows = "the row" if len(table.rejects) == 1 else f"all {len(table.rejects):,} rows"
    raise DataError(
        f"{path}:{first['row']}: {first['reason']}",
        hint=f"{remedy(first['reason'])}, or see {rejects_path} for {rows}",
    )
