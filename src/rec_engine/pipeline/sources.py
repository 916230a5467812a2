"""What to train on: a dataset by name or the user's own files, and the parts that are held out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rec_engine.data.data_loader import DEMO, custom_tables, load_custom, named_tables
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.log_tables import with_log
from rec_engine.data.shards import data_name, is_sharded
from rec_engine.data.splits import Split
from rec_engine.data.targets import load_targets
from rec_engine.data.validation import Tables
from rec_engine.errors import DataError
from rec_engine.utils.config import ModelConfig

CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class DataFiles:
    """A user's own data: files, and the URL of the log that his service has kept.

    `train` may be a folder or a pattern of Parquet files, whose interactions then lie on the disk of `scratch`.
    """

    train: Path | None = None
    validation: Path | None = None
    items: Path | None = None
    users: Path | None = None
    rejects: Path | None = None
    events: str | None = None
    scratch: Path | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What to train on.

    Attributes:
        name: for the manifest.
        dataset: what is known.
        split: given by the user's files; None leaves it to the settings.
        log_url: of the log that is part of it, which also says what was shown; None without a log.
    """

    name: str
    dataset: RecommendationDataset
    split: Split | None
    log_url: str | None = None


def load_source(dataset: str | None, data_dir: Path, files: DataFiles, config: ModelConfig, *, offline: bool) -> Source:
    """Return the data that the flags name; without a name it is the user's own where there is any, else the demo's.

    Raises:
        DataError: if flags contradict each other or the data cannot be loaded.
        StoreError: if the log cannot be read.
    """
    is_own = any((files.train, files.validation, files.items, files.users))
    dataset = dataset or (CUSTOM if is_own or files.events else DEMO)
    if is_own and dataset != CUSTOM:
        raise DataError(f"--dataset {dataset} takes no files", hint="use --dataset custom with --train-data")
    if files.train and is_sharded(files.train):
        own = _of_shards(files, files.train, config)
    else:
        own = _of_tables(dataset, data_dir, files, config, offline=offline)
    split = _given_split(own, files.validation, config) if files.validation else None
    name = data_name(files.train) if files.train else dataset
    return Source(f"{name} and the log" if files.events else name, own, split, files.events)


def _of_shards(files: DataFiles, train: Path, config: ModelConfig) -> RecommendationDataset:
    if files.events:
        raise DataError(
            f"--events cannot come on top of the shards in {train}",
            hint="put the service's events into the shards, or give one file that fits into memory",
        )
    if files.scratch:
        files.scratch.mkdir(parents=True, exist_ok=True)
    return load_custom(
        train, files.items, files.users, settings=config.data, rejects_path=files.rejects, scratch=files.scratch
    )


def _of_tables(
    dataset: str, data_dir: Path, files: DataFiles, config: ModelConfig, *, offline: bool
) -> RecommendationDataset:
    own = dataset == CUSTOM
    tables = _own_tables(files, config) if own else named_tables(dataset, data_dir, config.data, offline=offline)
    log = None
    if files.events:
        tables, log = with_log(tables, files.events)
    return RecommendationDataset.from_clean(tables, config.data, log=log)


def _own_tables(files: DataFiles, config: ModelConfig) -> Tables:
    if files.train is None and files.events is None:
        raise DataError(
            "--dataset custom needs --train-data or --events",
            hint="a CSV, Parquet or JSON Lines file of interactions, or the URL of the event store",
        )
    return custom_tables(files.train, files.items, files.users, settings=config.data, rejects_path=files.rejects)


def _given_split(own: RecommendationDataset, validation: Path, config: ModelConfig) -> Split:
    """Return the training file as train and the other as validation; there is no test part then."""
    held_out = load_targets(validation, own.user_ids, own.item_ids, config.data)
    nothing = held_out.where(np.zeros(len(held_out), dtype=np.bool_))
    return Split("given files", own.interactions, held_out, nothing, config.data.repeat_items)
