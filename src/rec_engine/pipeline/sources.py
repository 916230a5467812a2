"""What to train on: a dataset by name or the user's own files, and the parts that are held out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rec_engine.data.data_loader import load_custom, load_dataset
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.splits import Split
from rec_engine.data.targets import load_targets
from rec_engine.errors import DataError
from rec_engine.utils.config import ModelConfig

CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class DataFiles:
    """A user's own files."""

    train: Path | None = None
    validation: Path | None = None
    items: Path | None = None
    users: Path | None = None
    rejects: Path | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What to train on.

    Attributes:
        name: for the manifest.
        dataset: what is known.
        split: given by the user's files; None leaves it to the settings.
    """

    name: str
    dataset: RecommendationDataset
    split: Split | None


def load_source(dataset: str, data_dir: Path, files: DataFiles, config: ModelConfig, *, offline: bool) -> Source:
    """Return the data that the flags name.

    Raises:
        DataError: if flags contradict each other or the data cannot be loaded.
    """
    if dataset != CUSTOM:
        if any((files.train, files.validation, files.items, files.users)):
            raise DataError(f"--dataset {dataset} takes no files", hint="use --dataset custom with --train-data")
        return Source(dataset, load_dataset(dataset, data_dir, settings=config.data, offline=offline), None)
    if files.train is None:
        raise DataError("--dataset custom needs --train-data", hint="a CSV, Parquet or JSON Lines file of interactions")
    own = load_custom(files.train, files.items, files.users, settings=config.data, rejects_path=files.rejects)
    split = _given_split(own, files.validation, config) if files.validation else None
    return Source(files.train.name, own, split)


def _given_split(own: RecommendationDataset, validation: Path, config: ModelConfig) -> Split:
    """Return the training file as train and the other as validation; there is no test part then."""
    held_out = load_targets(validation, own.user_ids, own.item_ids, config.data)
    nothing = held_out.where(np.zeros(len(held_out), dtype=np.bool_))
    return Split("given files", own.interactions, held_out, nothing, config.data.repeat_items)
