"""Interactions from Parquet files that together need not fit into memory: read in batches, and sorted on disk.

What comes out is to the bit what `clean_interactions` and `RecommendationDataset` make of the same rows at once.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import takewhile
from pathlib import Path

import numpy as np
import polars as pl

from rec_engine.data.columns import renamed
from rec_engine.data.dataset import IdMap, coded
from rec_engine.data.external_sort import Buckets, bucket_bounds
from rec_engine.data.interactions import Interactions
from rec_engine.data.rejects import MAX_REJECTS, together
from rec_engine.data.scratch import ScratchFile, files_left
from rec_engine.data.table_batches import BATCH_ROWS, table_batches
from rec_engine.data.tables import Kind, kind_of
from rec_engine.data.validation import OPTIONAL, REQUIRED, Cleaned, clean_interactions
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import with_progress

ROWS_A_BUCKET, MAX_BUCKETS = 1_000_000, 512
"""What is sorted at once, unless there would be too many open files."""
SAMPLES_A_BUCKET = 1_000
SAMPLING_SEED = 0
MIN_COMPACTED = 1_000_000


def is_sharded(path: Path) -> bool:
    """Return whether a path names a folder, be it there or not, or files by a pattern, as events/*.parquet does."""
    return path.is_dir() or (not path.exists() and (glob.has_magic(str(path)) or not path.suffix))


def data_name(path: Path) -> str:
    """Return what a file or a folder is called; of a pattern, the folder that it is about."""
    if not is_sharded(path):
        return path.name
    return Path(*takewhile(lambda part: not glob.has_magic(part), path.parts)).resolve().name


def shards_of(path: Path) -> list[Path]:
    """Return the Parquet files in a folder and below it, or those that fit a pattern, in the order of their names.

    Of a folder, what begins with a dot or an underscore is left out, as those who write shards expect.

    Raises:
        DataError: if there is none, or the pattern fits other files too.
    """
    if path.is_dir():
        found = [file for file in _files_below(path) if not _is_hidden(file.relative_to(path))]
    else:
        found = [file for name in set(glob.glob(str(path), recursive=True)) if (file := Path(name)).is_file()]
        for file in found:
            if kind_of(file) is not Kind.PARQUET:
                raise DataError(f"{file}: is not a Parquet file", hint=f"{path} is to fit Parquet files only")
    if not found:
        raise DataError(f"{path}: there is no Parquet file", hint=f"paths count from {Path.cwd()}")
    return sorted(found)


def _files_below(directory: Path) -> Iterator[Path]:
    """Yield Parquet files, those behind links to folders as well, each folder once."""
    entered = set[Path]()
    for folder, below, names in os.walk(directory, followlinks=True):
        if (real := Path(folder).resolve()) in entered:
            below.clear()
            continue
        entered.add(real)
        yield from (Path(folder) / name for name in names if name.lower().endswith(".parquet"))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


class ShardedRows:
    """The good rows of shards, on disk as they were read, and what was wrong with the others; to be entered.

    Args:
        shards: Parquet files; of one moment of one user, rows of earlier ones come first.
        directory: on whose disk the rows lie.
        settings: how rows are read.

    Attributes:
        found: of each batch, the shard and what is wrong in it, without the rows that are good.
        n_good: those rows.

    Raises:
        DataError: if a shard lacks a column, or has other columns than the first one.
    """

    def __init__(self, shards: Sequence[Path], directory: Path, settings: DataSettings) -> None:
        _check_columns(shards)
        self._sizes = {shard: n_rows for shard in shards if (n_rows := _n_rows(shard))}
        if not self._sizes:
            raise DataError(f"{shards[0]} and the other shards: there is not one row", hint="give shards with rows")
        # Each is an open file. Where few are allowed they are larger, and half of those are left to whoever needs them.
        most = max(1, min(MAX_BUCKETS, files_left() // 2))
        self.n_buckets = min(-(-sum(self._sizes.values()) // ROWS_A_BUCKET), most)
        self.directory, self.settings = directory, settings
        self.found: list[tuple[Path, Cleaned]] = []
        self.n_good = 0
        self._user_ids, self._item_ids, self._sample = _DistinctIds(), _DistinctIds(), list[pl.Series]()
        self._spool = _Spool(directory)

    def __enter__(self) -> "ShardedRows":
        return self

    def __exit__(self, *raised: object) -> None:
        self._spool.close()

    def read(self) -> None:
        """Read all shards, or as many as it takes to know that too many of their rows are bad.

        Raises:
            DataError: if a shard cannot be read, or there is no room on the disk.
        """
        n_rows, n_bad, rng = sum(self._sizes.values()), 0, np.random.default_rng(SAMPLING_SEED)
        share = self.n_buckets * SAMPLES_A_BUCKET / n_rows
        n_batches = sum(-(-n_rows // BATCH_ROWS) for n_rows in self._sizes.values())
        batches = _batches(self._sizes, self.settings)
        for shard, cleaned in with_progress(batches, "interactions: reading", n_batches):
            self.found.append((shard, replace(cleaned, frame=cleaned.frame.clear())))
            n_bad += len(cleaned.rejects)
            if n_bad > max(MAX_REJECTS, self.settings.max_rejected * n_rows):
                break
            self.n_good += len(cleaned.frame)
            self._user_ids.add(cleaned.frame["user_id"])
            self._item_ids.add(cleaned.frame["item_id"])
            # At random: of many short files in the order of users every n-th row would be one of their first ones.
            self._sample.append(cleaned.frame["user_id"].filter(rng.random(len(cleaned.frame)) < share))
            self._spool.add(_narrow(cleaned.frame))

    @property
    def first_bad(self) -> Path:
        """The first shard that has a row which cannot be used; the first one of all where none has."""
        return next((shard for shard, cleaned in self.found if len(cleaned.rejects)), self.found[0][0])

    def judged(self) -> Cleaned:
        """Return what is wrong with all shards together."""
        return together([cleaned for _, cleaned in self.found])

    def sorted(self, users: pl.DataFrame, items: pl.DataFrame) -> tuple[Interactions, IdMap, IdMap]:
        """Return the interactions, on disk, and the ids of users and items: of the rows and of the tables."""
        user_ids, item_ids = self._user_ids.with_others(users["user_id"]), self._item_ids.with_others(items["item_id"])
        sample = user_ids.codes_of(pl.concat([ids.cast(user_ids.ids.dtype) for ids in self._sample]))
        bounds = bucket_bounds(sample, len(user_ids), self.n_buckets)
        with Buckets(self.directory, bounds) as buckets:
            for rows in with_progress(self._spool, "interactions: dividing by user", len(self._spool)):
                buckets.add(coded(rows, user_ids, item_ids))
            return buckets.sorted(self.settings), user_ids, item_ids


def _check_columns(shards: Sequence[Path]) -> None:
    """Refuse shards that are not parts of one table, and ids of which only the whole column tells what they are."""
    expected = pl.Schema()
    for shard in shards:
        try:
            schema = pl.scan_parquet(shard, glob=False).collect_schema()
            table, _ = renamed(pl.DataFrame(schema=schema), "interactions", REQUIRED, OPTIONAL)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{shard}: not readable as Parquet: {error}", hint="write the file anew") from None
        except DataError as error:
            raise DataError(f"{shard}: {error}", hint=error.hint) from None
        expected = expected or pl.Schema(schema)
        for name in {**expected, **schema}:
            if expected.get(name) != schema.get(name):
                here, there = (known.get(name, "missing") for known in (schema, expected))
                raise DataError(
                    f"{shard}: the column {name} is {here}, in {shards[0]} it is {there}",
                    hint="all shards have the same columns, of the same types",
                )
        for name in ("user_id", "item_id"):
            if table.schema[name].is_float():
                raise DataError(f"{shard}: {name} is {table.schema[name]}", hint="ids are integers or text")


def _n_rows(shard: Path) -> int:
    n_rows: int = pl.scan_parquet(shard, glob=False).select(pl.len()).collect().item()
    return n_rows


def _batches(shards: Iterable[Path], settings: DataSettings) -> Iterator[tuple[Path, Cleaned]]:
    for shard in shards:
        for batch in table_batches(shard):
            try:
                yield shard, clean_interactions(batch, settings)
            except DataError as error:
                raise DataError(f"{shard}: {error}", hint=error.hint) from None


def _narrow(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what sorting needs: of the event's id, it is enough to know whether two are the same."""
    event_id = pl.col("event_id").hash() if "event_id" in rows.columns else pl.lit(0, pl.UInt64)
    return rows.select(*REQUIRED, *OPTIONAL, event_id.alias("event_id"))


class _DistinctIds:
    """Collects ids, and remembers each of them once or a few times."""

    def __init__(self) -> None:
        self._seen = [pl.Series("id", [], dtype=pl.Int64)]

    def add(self, column: pl.Series) -> None:
        self._seen.append(column.unique())
        if sum(map(len, self._seen[1:])) > max(MIN_COMPACTED, len(self._seen[0])):
            self._seen = [IdMap.of(*self._seen).ids]

    def with_others(self, column: pl.Series) -> IdMap:
        return IdMap.of(*self._seen, column)


class _Spool:
    """Frames in a file without a name, to be read in the same order."""

    def __init__(self, directory: Path) -> None:
        self._file = ScratchFile(directory)
        self._sizes: list[int] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        self._file.rewind()
        for size in self._sizes:
            yield pl.read_ipc(self._file.read(size))

    def add(self, frame: pl.DataFrame) -> None:
        data = BytesIO()
        frame.write_ipc(data, compression="lz4")
        self._sizes.append(self._file.write(data.getbuffer()))

    def close(self) -> None:
        self._file.close()
