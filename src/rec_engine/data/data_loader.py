"""Datasets by name and from files: the way from a disk to a RecommendationDataset."""

import difflib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import polars as pl

from rec_engine.data.dataset import RecommendationDataset as RecommendationDataset
from rec_engine.data.movielens import find_or_download, read_movielens
from rec_engine.data.rejects import check_rejects, default_rejects, write_rejects
from rec_engine.data.shards import ShardedRows, data_name, is_sharded, shards_of
from rec_engine.data.tables import read_table
from rec_engine.data.validation import (
    REQUIRED,
    Cleaned,
    Tables,
    accepted_tables,
    clean_interactions,
    clean_items,
    clean_users,
)
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

DEMO = "demo"
"""The dataset that needs neither files nor a network: simulated."""

DATASETS = {
    DEMO: DEMO,
    "movielens-100k": "ml-100k",
    "movielens-latest-small": "ml-latest-small",
    "movielens-1m": "ml-1m",
    "movielens-10m": "ml-10m",
    "movielens-20m": "ml-20m",
    "movielens-25m": "ml-25m",
    "movielens-32m": "ml-32m",
    "ml-100k": "ml-100k",
    "ml-latest-small": "ml-latest-small",
    "ml-1m": "ml-1m",
    "ml-10m": "ml-10m",
    "ml-20m": "ml-20m",
    "ml-25m": "ml-25m",
    "ml-32m": "ml-32m",
}
"""Names that `load_dataset` knows, and GroupLens' name of each."""

log = logging.getLogger(__name__)


def load_dataset(
    name: str, data_dir: Path, *, settings: DataSettings | None = None, offline: bool = False
) -> RecommendationDataset:
    """Return a dataset by its name; see `named_tables`."""
    settings = settings or DataSettings()
    return RecommendationDataset.from_clean(named_tables(name, data_dir, settings, offline=offline), settings)


def named_tables(name: str, data_dir: Path, settings: DataSettings, *, offline: bool = False) -> Tables:
    """Return the tables of a dataset by its name.

    Args:
        name: one of DATASETS, in any case.
        data_dir: where MovieLens lies or is downloaded to; not used for the demo.
        settings: how rows are read and weighted.
        offline: do not use the network.

    Raises:
        DataError: if the name is unknown or the data can neither be found nor fetched.
    """
    known = DATASETS.get(name.lower())
    if known is None:
        near = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.5)
        raise DataError(
            f"there is no dataset {name!r}",
            hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(DATASETS)}",
        )
    if known == DEMO:
        # Only the demo needs the simulator.
        from rec_engine.data.clickstream_sim import demo_frames

        demo = demo_frames(seed=0)
        return accepted_tables(demo.interactions, demo.users, demo.items, settings)
    found = read_movielens(find_or_download(known, data_dir, offline=offline))
    return accepted_tables(found.interactions, found.users, found.items, settings)


def load_custom(
    train_data: Path,
    items_data: Path | None = None,
    users_data: Path | None = None,
    *,
    settings: DataSettings | None = None,
    rejects_path: Path | None = None,
    scratch: Path | None = None,
) -> RecommendationDataset:
    """Return the dataset of a user's own files; see `custom_tables`.

    Where `train_data` is a folder or a pattern, its Parquet files may together be larger than memory: their rows come
    in the order of the files' names, and the interactions lie on the disk of `scratch`, by default that of temporary
    files.
    """
    settings = settings or DataSettings()
    if not is_sharded(train_data):
        tables = custom_tables(train_data, items_data, users_data, settings=settings, rejects_path=rejects_path)
        return RecommendationDataset.from_clean(tables, settings)
    users, items = _features(users_data, clean_users, settings), _features(items_data, clean_items, settings)
    features = [(path, table) for path, table in ((users_data, users), (items_data, items)) if path]
    rejects_path = rejects_path or default_rejects(Path(data_name(train_data)))
    with ShardedRows(shards_of(train_data), scratch or Path(gettempdir()), settings) as rows:
        rows.read()
        write_rejects([*rows.found, *features], rejects_path)
        for path, table in ((rows.first_bad, rows.judged()), *features):
            check_rejects(path, table, rejects_path)
        interactions, user_ids, item_ids = rows.sorted(users.frame, items.frame)
    whole = rows.judged()
    _tell(train_data, replace(whole, n_duplicates=whole.n_duplicates + rows.n_good - len(interactions)))
    return RecommendationDataset.of_interactions(interactions, user_ids, item_ids, users=users.frame, items=items.frame)


def custom_tables(
    train_data: Path | None,
    items_data: Path | None = None,
    users_data: Path | None = None,
    *,
    settings: DataSettings,
    rejects_path: Path | None = None,
) -> Tables:
    """Return the tables of a user's own files; rows that cannot be used are written to a file of rejects.

    Args:
        train_data: interactions, CSV, TSV, JSON Lines or Parquet; see `clean_interactions` for the columns.
        items_data: features of the items.
        users_data: features of the users.
        settings: how rows are read and weighted.
        rejects_path: CSV of `file`, `line`, `reason`, `content`, written only when there are rejects; by default
            `<name of train_data>.rejects.csv` in the current directory.

    Raises:
        DataError: if a file cannot be read, lacks a column, or more than `settings.max_rejected` of its rows are
            rejected; the message names file and line.
    """
    rows = _cleaned(train_data, clean_interactions, settings) if train_data else _nothing(settings)
    users, items = _features(users_data, clean_users, settings), _features(items_data, clean_items, settings)
    given = [(path, table) for path, table in ((train_data, rows), (users_data, users), (items_data, items)) if path]
    if given:
        rejects_path = rejects_path or default_rejects(given[0][0])
        write_rejects(given, rejects_path)
        for path, table in given:
            check_rejects(path, table, rejects_path)
    return Tables(rows.frame, users.frame, items.frame)


def _nothing(settings: DataSettings) -> Cleaned:
    return clean_interactions(pl.DataFrame(schema=dict.fromkeys(REQUIRED, pl.Int64)), settings)


def _features(
    path: Path | None, clean: Callable[[pl.DataFrame | None, DataSettings], Cleaned], settings: DataSettings
) -> Cleaned:
    return _cleaned(path, clean, settings) if path else clean(None, settings)


def _cleaned(path: Path, clean: Callable[[pl.DataFrame, DataSettings], Cleaned], settings: DataSettings) -> Cleaned:
    table = read_table(path)
    try:
        cleaned = clean(table, settings)
    except DataError as error:
        raise DataError(f"{path}: {error}", hint=error.hint) from None
    _tell(path, cleaned)
    return cleaned


def _tell(path: Path, cleaned: Cleaned) -> None:
    log.info(
        "%s: %s rows, %s rejected, %s duplicates merged",
        path,
        f"{cleaned.n_rows:,}",
        f"{len(cleaned.rejects):,}",
        f"{cleaned.n_duplicates:,}",
    )
