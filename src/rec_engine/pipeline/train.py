"""The offline half on one page: data to towers to index to ranker to report to a bundle that can be served."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch
import yaml

from rec_engine.bundle import (
    FORMAT_VERSION,
    Manifest,
    new_version,
    new_version_name,
    promote,
    seal,
    write_history,
)
from rec_engine.data.dataset import FloatArray, RecommendationDataset
from rec_engine.data.splits import Split, leave_one_out, random_split, temporal_split
from rec_engine.evaluation.evaluator import Evaluation, validation_task
from rec_engine.models.attributes import attribute_matrix
from rec_engine.models.checkpoints import EpochRecord
from rec_engine.models.embeddings import ContentEmbedder, Whitening, item_texts
from rec_engine.models.export import export_user_tower, item_arrays
from rec_engine.models.features import FEATURES
from rec_engine.models.lightgbm_ranker import CTRRanker
from rec_engine.models.links import fit_links
from rec_engine.models.training import TwoTowerTrainer
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.models.user_tower import UserTower, open_session
from rec_engine.pipeline.ranking import fit_ranker
from rec_engine.pipeline.report import assemble_path, measure, reported_task
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.utils.config import ModelConfig, TextSettings
from rec_engine.utils.logger import get_logger

LIBRARIES = ("rec-engine", "torch", "numpy", "faiss-cpu", "lightgbm", "onnxruntime", "polars")
CHECKPOINT = "checkpoint.safetensors"
USER_TOWER = "user_tower.onnx"

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run made.

    Attributes:
        version: name of the new, promoted version.
        directory: where it lies.
        epochs: one record each.
        evaluations: the towers alone and, with a ranker, the whole request path.
        measured_on: the data they were measured on.
    """

    version: str
    directory: Path
    epochs: list[EpochRecord]
    evaluations: list[Evaluation]
    measured_on: str


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What training makes.

    Attributes:
        tower: histories to user vectors.
        index: search among the item vectors.
        ranker: orders the candidates; None where none does it better than retrieval.
        epochs: of the towers' training.
    """

    tower: UserTower
    index: FAISSIndex
    ranker: CTRRanker | None
    epochs: list[EpochRecord]


def train(
    dataset: RecommendationDataset,
    config: ModelConfig,
    model_dir: Path,
    *,
    name: str,
    split: Split | None = None,
    resume: bool = False,
) -> TrainingReport:
    """Train, measure and publish a new current version below `model_dir`.

    Args:
        dataset: what is known.
        config: model_config.yaml.
        model_dir: the registry of versions.
        name: of the dataset, for the manifest.
        split: the parts; without it they are cut as `config.evaluation` says.
        resume: go on from the checkpoint of an interrupted run with the same data and settings.

    Raises:
        TrainingError: if the data holds nothing that can be learned.
        DataError: if it cannot be split as wanted.
    """
    split = split or make_split(dataset, config)
    checkpoint = model_dir / CHECKPOINT
    created_at = datetime.now(UTC)
    version_name = new_version_name(dataset.fingerprint, created_at)
    task = reported_task(split)
    with TemporaryDirectory() as work:
        model = fit_model(dataset, config, split, Path(work), checkpoint=checkpoint, resume=resume)
        evaluations = measure(task, model.tower, model.index, dataset.items["categories"], model.ranker)
        with new_version(model_dir, version_name) as directory:
            _write_model(directory, model, Path(work))
            _write_data(directory, dataset, split)
            _write_manifest(directory, dataset, config, evaluations[-1], name=name, split=split, created_at=created_at)
    promote(model_dir, version_name)
    checkpoint.unlink(missing_ok=True)
    logger.info("published %s", model_dir / version_name)
    return TrainingReport(version_name, model_dir / version_name, model.epochs, evaluations, task.name)


def fit_model(  # noqa: PLR0913 - the data, the settings and where to go on
    dataset: RecommendationDataset,
    config: ModelConfig,
    split: Split,
    directory: Path,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> TrainedModel:
    """Train towers and ranker on a split, in that order: what the ranker orders is what the towers retrieve.

    Args:
        dataset: what is known.
        config: model_config.yaml.
        split: its test part is not touched.
        directory: where user_tower.onnx goes; everything is measured through the exported tower, as it is served.
        checkpoint: of the towers' training.
        resume: go on from the checkpoint.
    """
    towers = build_model(dataset, config)
    trainer = TwoTowerTrainer(towers, config.training, checkpoint=checkpoint)
    epochs = trainer.fit(split.train, validation_task(split), resume=resume)
    item_inputs, item_vectors = item_arrays(towers)
    index = FAISSIndex.build(item_vectors, config.faiss, ids=dataset.item_ids.ids.to_list(), seed=config.training.seed)
    tower = export_tower(towers, item_inputs, directory / USER_TOWER)
    ranker = fit_ranker(assemble_path(tower, index, dataset.items["categories"], split.train), split, config)
    return TrainedModel(tower, index, ranker, epochs)


def make_split(dataset: RecommendationDataset, config: ModelConfig) -> Split:
    """Return the split that the settings ask for.

    Raises:
        DataError: if the data cannot be split in time.
    """
    settings = config.evaluation
    if settings.split == "temporal":
        return temporal_split(dataset.interactions, settings.test_share, settings.validation_share)
    if settings.split == "random":
        shares = settings.test_share, settings.validation_share
        return random_split(dataset.interactions, *shares, seed=config.training.seed)
    return leave_one_out(dataset.interactions)


def build_model(dataset: RecommendationDataset, config: ModelConfig) -> TwoTowerModel:
    """Return an untrained model for a dataset: seeded, with the attributes of users and items as features."""
    torch.manual_seed(config.training.seed)
    return TwoTowerModel(
        num_users=dataset.n_users,
        num_items=dataset.n_items,
        user_features=torch.from_numpy(attribute_matrix(dataset.users)),
        item_features=torch.from_numpy(attribute_matrix(dataset.items)),
        text_embeddings=torch.from_numpy(text_matrix(dataset.items, config.text)),
        **config.model.model_dump(),
    )


def text_matrix(items: pl.DataFrame, settings: TextSettings) -> FloatArray:
    """Return (n_items, dim) float32, the whitened embeddings of what the items are about; dim is 0 without texts."""
    texts = item_texts(items)
    if settings.encoder == "none" or not any(texts):
        return np.zeros((items.height, 0), dtype=np.float32)
    embeddings = ContentEmbedder(settings).embed(texts)
    return Whitening.fit(embeddings, settings.dim).apply(embeddings)


def export_tower(model: TwoTowerModel, item_inputs: FloatArray, path: Path) -> UserTower:
    """Write the user tower to `path` and return what serves it: from here on nothing is measured through torch."""
    export_user_tower(model, path)
    return UserTower(
        session=open_session(path),
        item_inputs=item_inputs,
        user_inputs=model.user_embedding.weight.detach().numpy(),
        user_features=model.user_features.numpy(),
        max_history_len=model.max_history_len,
    )


def _write_model(directory: Path, model: TrainedModel, work: Path) -> None:
    shutil.copy(work / USER_TOWER, directory / USER_TOWER)
    np.save(directory / "item_inputs.npy", model.tower.item_inputs)
    np.save(directory / "user_inputs.npy", model.tower.user_inputs)
    np.save(directory / "user_features.npy", model.tower.user_features)
    model.index.save(directory / "index")
    if model.ranker:
        model.ranker.save(directory / "ranker.txt")


def _write_data(directory: Path, dataset: RecommendationDataset, split: Split) -> None:
    dataset.users.write_parquet(directory / "users.parquet")
    dataset.items.write_parquet(directory / "items.parquet")
    (directory / "links").mkdir()
    for name, links in fit_links(dataset.interactions, dataset.n_items).items():
        links.save(directory / "links" / f"{name}.npz")
    write_history(directory / "history.npz", dataset.interactions, split)


def _write_manifest(  # noqa: PLR0913 - a manifest names all of them
    directory: Path,
    dataset: RecommendationDataset,
    config: ModelConfig,
    reached: Evaluation,
    *,
    name: str,
    split: Split,
    created_at: datetime,
) -> None:
    (directory / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    metrics = {metric: reached.mean(metric) for metric in reached.per_user}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        version=new_version_name(dataset.fingerprint, created_at),
        created_at=created_at,
        dataset=name,
        dataset_fingerprint=dataset.fingerprint,
        split=split.name,
        features=tuple(FEATURES),
        libraries={library: version(library) for library in LIBRARIES},
        metrics={metric: value for metric, value in metrics.items() if np.isfinite(value)},
        sha256_by_file={},
    )
    seal(directory, manifest)
