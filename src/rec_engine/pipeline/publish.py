"""The files of a version: what training made, in the form in which it is served."""

import shutil
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml

from rec_engine.bundle import FORMAT_VERSION, Manifest, seal, write_history
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.splits import Split
from rec_engine.models.features import FEATURES
from rec_engine.pipeline.evaluate import TrainedModel
from rec_engine.retrieval.links import Links
from rec_engine.utils.config import ModelConfig

LIBRARIES = ("rec-engine", "torch", "numpy", "faiss-cpu", "lightgbm", "onnxruntime", "polars")
USER_TOWER = "user_tower.onnx"
ITEM_TOWER = "item_tower"


def write_model(directory: Path, model: TrainedModel, exported: Path) -> None:
    """Write towers, index and re-ranker; `exported` is where the towers' own files lie."""
    shutil.copy(exported / USER_TOWER, directory / USER_TOWER)
    shutil.copytree(exported / ITEM_TOWER, directory / ITEM_TOWER)
    np.save(directory / "item_inputs.npy", model.tower.item_inputs)
    np.save(directory / "user_inputs.npy", model.tower.user_inputs)
    np.save(directory / "user_features.npy", model.tower.user_features)
    model.index.save(directory / "index")
    if model.ranker:
        model.ranker.save(directory / "ranker.txt")


def write_data(directory: Path, dataset: RecommendationDataset, split: Split, links: Mapping[str, Links]) -> None:
    """Write the tables, the history and its parts, and the links by name."""
    dataset.users.write_parquet(directory / "users.parquet")
    dataset.items.write_parquet(directory / "items.parquet")
    (directory / "links").mkdir()
    for name, of_kind in links.items():
        of_kind.save(directory / "links" / name)
    write_history(directory / "history", dataset.interactions, split)


def new_manifest(  # noqa: PLR0913 - what a manifest says
    dataset: RecommendationDataset,
    *,
    name: str,
    version_name: str,
    created_at: datetime,
    split: str,
    ease_regularisation: float,
    metrics: Mapping[str, float],
) -> Manifest:
    """Return the manifest of a version of this dataset, which `name` is for people; nan is no metric."""
    return Manifest(
        format_version=FORMAT_VERSION,
        version=version_name,
        created_at=created_at,
        dataset=name,
        dataset_fingerprint=dataset.fingerprint,
        split=split,
        features=tuple(FEATURES),
        ease_regularisation=ease_regularisation,
        log_position=dataset.log.position if dataset.log else 0,
        log_id=dataset.log.log_id if dataset.log else None,
        libraries={library: version(library) for library in LIBRARIES},
        metrics={metric: value for metric, value in metrics.items() if np.isfinite(value)},
        sha256_by_file={},
    )


def seal_version(directory: Path, config: ModelConfig, manifest: Manifest) -> None:
    """Write the settings and the manifest: the version is complete."""
    (directory / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    seal(directory, manifest)
