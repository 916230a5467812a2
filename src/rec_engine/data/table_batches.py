"""Files that need not fit into memory: read a few hundred thousand rows at a time, by the rules of `read_table`."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import polars as pl

from rec_engine.data.tables import LINE, Kind, kind_of, parse_text
from rec_engine.errors import DataError

BATCH_ROWS = 200_000
BLOCK_BYTES = 16 * 1024 * 1024
MAX_ROW_BYTES = 16 * BLOCK_BYTES
"""A row that does not end within so much text is taken for a quote that does not match."""


def table_batches(path: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of a file in order, as `read_table` returns them: with LINE, and cells of CSV as text.

    Columns are typed batch by batch: one that no row of a batch has is not in that batch.

    Raises:
        DataError: if the file is missing, empty, of an unknown ending, damaged or not UTF-8.
    """
    kind, n_rows = kind_of(path), 0
    if path.is_dir():
        raise DataError(f"{path}: is a directory, not a file", hint="give the path of the files in it")
    try:
        for table in _parquet_batches(path) if kind is Kind.PARQUET else _text_batches(path, kind):
            n_rows += len(table)
            if len(table):
                yield table
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", hint=f"paths count from {Path.cwd()}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint="is the file complete, and may you read it?") from None
    if not n_rows:
        raise DataError(f"{path}: there is not one row", hint="give a file with a header and rows")


def _parquet_batches(path: Path) -> Iterator[pl.DataFrame]:
    n_before = 0
    try:
        for batch in pl.scan_parquet(path, glob=False).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            yield batch.with_columns(pl.int_range(n_before + 1, n_before + len(batch) + 1).alias(LINE))
            n_before += len(batch)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not readable as Parquet: {error}", hint="write the file anew") from None


def _text_batches(path: Path, kind: Kind) -> Iterator[pl.DataFrame]:
    with path.open("rb") as raw, gzip.open(raw) if path.name.lower().endswith(".gz") else raw as file:
        is_delimited = kind is not Kind.JSON_LINES
        header, n_before = file.readline() if is_delimited else b"", 0
        for rows in _blocks(file, has_quotes=is_delimited):
            if rows.strip():
                yield parse_text(path, (header + rows).removeprefix(codecs.BOM_UTF8), kind, n_before)
            n_before += rows.count(b"\n")


def _blocks(file: BinaryIO | gzip.GzipFile, *, has_quotes: bool) -> Iterator[bytes]:
    """Yield the rest of a file in blocks of whole rows; the last one is whatever is left."""
    rest = b""
    while data := file.read(BLOCK_BYTES):
        rest += data
        if end := _end_of_rows(rest, has_quotes=has_quotes):
            yield rest[:end]
            rest = rest[end:]
        elif len(rest) > MAX_ROW_BYTES:
            raise DataError(
                f"{file.name}: the row that begins with {rest[:80]!r} does not end",
                hint="do the quotes match, and is it a text file of rows?",
            )
    if rest:
        yield rest


def _end_of_rows(data: bytes, *, has_quotes: bool) -> int:
    """Return where the last whole row ends, 0 if none does: at a line end before which every quote has its match."""
    end = data.rfind(b"\n") + 1
    is_open = has_quotes and data.count(b'"', 0, end) % 2
    while is_open and end:
        before = data.rfind(b"\n", 0, end - 1) + 1
        is_open ^= data.count(b'"', before, end) % 2
        end = before
    return end
