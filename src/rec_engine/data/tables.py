"""Tables from outside: files and other libraries' frames, read without losing a row or a leading zero."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Sequence
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.errors import DataError

LINE = "__line__"
"""Column in which `read_table` says which line of the file a row came from."""

SURPLUS = "surplus field"
"""Column in which `read_table` puts the first field beyond the header's last column, where a row has one."""


class Kind(Enum):
    """What a file holds; of a delimited one, what divides its fields."""

    PARQUET = "parquet"
    JSON_LINES = "json"
    COMMA = ","
    TAB = "\t"


KIND_BY_ENDING = {
    ".csv": Kind.COMMA,
    ".tsv": Kind.TAB,
    ".jsonl": Kind.JSON_LINES,
    ".ndjson": Kind.JSON_LINES,
    ".parquet": Kind.PARQUET,
}
"""Endings of the files that can be read; the text ones may be followed by .gz."""


def read_table(path: Path) -> pl.DataFrame:
    """Return the rows of a CSV, TSV, JSON Lines or Parquet file.

    CSV cells are text: ids such as 00123 keep their zeros, and whoever knows the column's meaning types it. Rows that
    are too short end in nulls; of a row that is too long the first field too many stands in the column SURPLUS, which
    is there only when needed. Blank lines are skipped.

    Args:
        path: ends in one of KIND_BY_ENDING; text is UTF-8 and may be compressed (.csv.gz).

    Returns:
        The file's columns and LINE (Int64): the line where the row begins, the header being line 1; in a Parquet file
        the row, from 1.

    Raises:
        DataError: if the file is missing, empty, of an unknown ending, damaged or not UTF-8.
    """
    kind = kind_of(path)
    data = _bytes(path)
    table = _read_parquet(path, data) if kind is Kind.PARQUET else parse_text(path, data, kind)
    if table.is_empty():
        raise DataError(f"{path}: there are columns but no rows", hint="give a file with at least one row")
    return table


def kind_of(path: Path) -> Kind:
    """Return what kind of file this is.

    Raises:
        DataError: if its name does not say so.
    """
    name = path.name.lower()
    for ending, kind in KIND_BY_ENDING.items():
        if name.endswith(ending) or (kind is not Kind.PARQUET and name.endswith(f"{ending}.gz")):
            return kind
    raise DataError(
        f"{path}: what kind of file this is cannot be told from its name",
        hint=f"the name must end in one of {', '.join(KIND_BY_ENDING)}, text files also in .csv.gz and the like",
    )


def parse_text(path: Path, data: bytes, kind: Kind, n_before: int = 0) -> pl.DataFrame:
    """Return the rows of a part of a text file, as `read_table` does.

    Args:
        path: of the file, for messages.
        data: whole rows; of a delimited file the header first.
        kind: of the file; not Parquet.
        n_before: lines of the file that come before these rows; the header is not counted.

    Raises:
        DataError: if the text is damaged or not UTF-8.
    """
    if kind is Kind.JSON_LINES:
        return _read_json_lines(path, data, n_before)
    return _read_delimited(path, data, kind.value, n_before)


def to_polars(frame: object) -> pl.DataFrame:
    """Return a polars DataFrame, LazyFrame or pandas DataFrame as a polars DataFrame; pandas' nan becomes null.

    Raises:
        DataError: if it is something else.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, PandasFrame):
        return pl.DataFrame([_from_pandas(str(name), frame[name]) for name in frame.columns])
    raise DataError(f"a table was expected, not a {type(frame).__name__}", hint="give a polars or pandas DataFrame")


def _bytes(path: Path) -> bytes:
    """Return the file's bytes, decompressed, without the mark that some editors put before UTF-8."""
    if path.is_dir():
        raise DataError(f"{path}: is a directory, not a file", hint="give the path of one of the files in it")
    try:
        data = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", hint=f"paths count from {Path.cwd()}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint="is the file complete, and may you read it?") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise DataError(f"{path}: the file is empty", hint="give a file with a header and rows")
    return data


def _read_parquet(path: Path, data: bytes) -> pl.DataFrame:
    try:
        return pl.read_parquet(BytesIO(data)).with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(LINE))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not readable as Parquet: {error}", hint="write the file anew") from None


def _read_json_lines(path: Path, data: bytes, n_before: int) -> pl.DataFrame:
    try:
        table = pl.read_ndjson(data, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise _json_error(path, data, str(error), n_before) from None
    numbers = [number for number, line in enumerate(data.split(b"\n"), start=n_before + 1) if line.strip()]
    return table.with_columns(pl.Series(LINE, numbers, dtype=pl.Int64))


def _json_error(path: Path, data: bytes, complaint: str, n_before: int) -> DataError:
    """Return the error that names the first line that is not a JSON object."""
    for number, line in enumerate(data.split(b"\n"), start=n_before + 1):
        try:
            content = json.loads(line) if line.strip() else {}
        except UnicodeDecodeError:
            return _encoding_error(path, number)
        except json.JSONDecodeError as error:
            return DataError(f"{path}:{number}: not JSON: {error}", hint="write one JSON object a line")
        if not isinstance(content, dict):
            return DataError(
                f"{path}:{number}: holds {line[:40]!r}, not an object", hint="write one JSON object a line"
            )
    return DataError(f"{path}: {complaint}", hint="a field must be of one type in all lines")


def _read_delimited(path: Path, data: bytes, separator: str, n_before: int) -> pl.DataFrame:
    header, _, rows = data.partition(b"\n")
    # A column that the header lacks catches what long rows have too much; polars would cut it off or refuse the file.
    text = header.rstrip(b"\r") + f"{separator}{SURPLUS}\n".encode() + rows
    try:
        table = pl.read_csv(text, separator=separator, infer_schema=False, truncate_ragged_lines=True)
    except pl.exceptions.PolarsError as error:
        raise _delimited_error(path, data, str(error), n_before) from None
    named = [name for name in table.columns if name != SURPLUS]
    n_line_ends = rows.count(b"\n") + (not rows.endswith(b"\n"))
    table = table.with_columns(n_before + _lines(table, has_line_ends_in_cells=n_line_ends != len(table)))
    if not table[SURPLUS].is_not_null().any():
        table = table.drop(SURPLUS)
    return table.filter(pl.any_horizontal(pl.col(named).is_not_null()))


def _lines(table: pl.DataFrame, *, has_line_ends_in_cells: bool) -> pl.Series:
    """Return the line where each row begins; quoted cells may run over several."""
    rows = pl.int_range(pl.len(), dtype=pl.Int64)
    if not has_line_ends_in_cells:
        return table.select((rows + 2).alias(LINE)).to_series()
    extra = pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True).cast(pl.Int64)).cum_sum()
    return table.select((rows + 2 + extra.shift(1, fill_value=0)).alias(LINE)).to_series()


def _delimited_error(path: Path, data: bytes, complaint: str, n_before: int) -> DataError:
    """Return the error that names the line where the reader stumbled."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return _encoding_error(path, n_before + data.count(b"\n", 0, error.start) + 1)
    cell = re.search("could not parse `(.+)", complaint)
    if cell is None:
        return DataError(
            f"{path}: not readable as a table: {complaint}", hint="is this a text file of rows and fields?"
        )
    found = cell.group(1).removesuffix("`")
    number = n_before + data.count(b"\n", 0, max(data.find(found.encode()), 0)) + 1
    return DataError(
        f"{path}:{number}: the quotes of {found[:80]} do not match",
        hint='a field that holds a quote is written "so ""quoted"" inside"',
    )


def _encoding_error(path: Path, number: int) -> DataError:
    return DataError(
        f"{path}:{number}: the text is not UTF-8",
        hint=f"convert it, for instance with: iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}",
    )


@runtime_checkable
class PandasColumn(Protocol):
    """What is used of a pandas Series."""

    def isna(self) -> "PandasColumn":
        """Return whether each cell is missing."""
        ...

    def to_numpy(self) -> NDArray[np.generic]:
        """Return the cells."""
        ...


@runtime_checkable
class PandasFrame(Protocol):
    """What is used of a pandas DataFrame."""

    columns: Sequence[str]

    def to_dict(self) -> object:
        """Mark of a pandas frame; not called."""
        ...

    def __getitem__(self, name: str) -> PandasColumn:
        """Return a column."""
        ...


def _from_pandas(name: str, column: PandasColumn) -> pl.Series:
    is_missing = np.asarray(column.isna().to_numpy(), dtype=np.bool_)
    cells = column.to_numpy()
    if cells.dtype != np.object_:
        return pl.Series(name, cells).set(pl.Series(is_missing), None)
    objects = [None if gone else cell for cell, gone in zip(cells.tolist(), is_missing.tolist(), strict=True)]
    try:
        return pl.Series(name, objects)
    except (TypeError, pl.exceptions.PolarsError):  # cells of several types, as pandas allows
        return pl.Series(name, [None if cell is None else str(cell) for cell in objects])
