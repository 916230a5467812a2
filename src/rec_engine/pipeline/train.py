"""The offline half on one page: data to towers to index to ranker to report to a bundle that can be served."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rec_engine.bundle import Manifest, new_version, new_version_name
from rec_engine.data.dataset import FloatArray, RecommendationDataset
from rec_engine.data.showing_log import load_showings
from rec_engine.data.showings import NO_SHOWINGS, ShowingLog
from rec_engine.data.splits import Split, leave_one_out, random_split, temporal_split
from rec_engine.errors import DataError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import Evaluation, validation_task
from rec_engine.evaluation.report import Findings, write_report
from rec_engine.models.export import export_user_tower, item_arrays
from rec_engine.models.links import fit_links
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.models.user_tower import UserTower, open_session
from rec_engine.pipeline.evaluate import TrainedModel, choose_regularisation
from rec_engine.pipeline.gate import judge_version
from rec_engine.pipeline.publish import ITEM_TOWER, USER_TOWER, new_manifest, seal_version, write_data, write_model
from rec_engine.pipeline.quality import examine
from rec_engine.pipeline.teaching import teach_ranker
from rec_engine.pipeline.towers import ALONE, ItemEncoding, Launch, build_model, finish_item_tower, fit_towers
from rec_engine.registry import ModelRegistry
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.logger import get_logger

CHECKPOINT = "checkpoint.safetensors"

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run made.

    Attributes:
        version: name of the new version.
        directory: where it lies.
        epochs: one record each.
        evaluations: the towers alone and, with a ranker, the whole request path.
        measured_on: the data they were measured on.
        verdict: whether the neural model earns its keep, in words.
        is_current: whether it was promoted.
        gate: why it was, or was not, in words.
    """

    version: str
    directory: Path
    epochs: tuple[EpochRecord, ...]
    evaluations: list[Evaluation]
    measured_on: str
    verdict: str
    is_current: bool
    gate: str


def train(
    dataset: RecommendationDataset,
    config: ModelConfig,
    model_dir: Path,
    *,
    name: str,
    split: Split | None = None,
    log_url: str | None = None,
    launch: Launch = ALONE,
) -> TrainingReport:
    """Train, measure and publish a version below `model_dir`; it becomes the current one if the gate lets it through.

    Args:
        dataset: what is known.
        config: model_config.yaml.
        model_dir: the registry of versions.
        name: of the dataset, for the manifest.
        split: the parts; without it they are cut as `config.evaluation` says.
        log_url: of the log that says what the service has shown, for the re-ranker to know and to learn from.
        launch: whether to go on from a checkpoint, and with how many workers.

    Raises:
        TrainingError: if the data holds nothing that can be learned.
        DataError: if it cannot be split as wanted.
    """
    split = replace(split or make_split(dataset, config), repeats=config.data.repeat_items)
    if log_url:
        split = replace(split, shown=_shown_before_requests(dataset, split, log_url))
    checkpoint = model_dir / CHECKPOINT
    created_at = datetime.now(UTC)
    version_name = new_version_name(dataset.fingerprint, created_at)
    with TemporaryDirectory() as work:
        model = fit_model(dataset, config, split, Path(work), log_url=log_url, checkpoint=checkpoint, launch=launch)
        findings = examine(model, dataset, split, name=name, version=version_name, created_at=created_at)
        with new_version(model_dir, version_name) as directory:
            write_model(directory, model, Path(work))
            links = fit_links(dataset.interactions, dataset.n_items, model.ease_regularisation)
            write_data(directory, dataset, split, links)
            verdict = write_report(findings, directory)
            seal_version(directory, config, _manifest(findings, dataset, model.ease_regularisation))
    is_current, gate = _take_over(ModelRegistry(model_dir), version_name)
    checkpoint.unlink(missing_ok=True)
    logger.info("published %s", model_dir / version_name)
    return TrainingReport(
        version=version_name,
        directory=model_dir / version_name,
        epochs=model.epochs,
        evaluations=[found for found in findings.evaluations if found.name in findings.own],
        measured_on=findings.measured_on,
        verdict=verdict,
        is_current=is_current,
        gate=gate,
    )


def _shown_before_requests(dataset: RecommendationDataset, split: Split, log_url: str) -> ShowingLog:
    """Return what of the log is known to those who ask in the validation part or later."""
    asked = np.concatenate([split.validation.timestamps, split.test.timestamps])
    if not len(asked):
        return NO_SHOWINGS
    return load_showings(log_url, dataset.user_ids, dataset.item_ids, since=int(asked.min()))


def _manifest(findings: Findings, dataset: RecommendationDataset, ease_regularisation: float) -> Manifest:
    reached = findings.evaluations[-1]
    return new_manifest(
        dataset,
        name=findings.dataset,
        version_name=findings.version,
        created_at=findings.created_at,
        split=findings.split,
        ease_regularisation=ease_regularisation,
        metrics={metric: reached.mean(metric) for metric in reached.per_user},
    )


def _take_over(registry: ModelRegistry, version: str) -> tuple[bool, str]:
    """Promote a version unless the gate says no, and return whether and why; one of other data cannot be judged."""
    try:
        verdict = judge_version(registry, version)
        passes, reason = verdict.passes, verdict.sentence
    except DataError as error:
        passes, reason = True, f"not compared: {error}"
    if passes:
        registry.promote(version, reason=reason)
    return passes, reason


def fit_model(  # noqa: PLR0913 - the data, the settings and where to go on
    dataset: RecommendationDataset,
    config: ModelConfig,
    split: Split,
    directory: Path,
    *,
    log_url: str | None = None,
    checkpoint: Path | None = None,
    launch: Launch = ALONE,
) -> TrainedModel:
    """Train towers and ranker on a split, in that order: what the ranker orders is what the towers retrieve.

    Args:
        dataset: what is known.
        config: model_config.yaml.
        split: its test part is not touched.
        directory: where user_tower.onnx and item_tower/ go; everything is measured through what is exported, as it is
            served.
        log_url: of the log that says what the service has shown, for the ranker to learn from.
        checkpoint: of the towers' training.
        launch: whether to go on from the checkpoint, and with how many workers.
    """
    started = time.monotonic()
    encoding = ItemEncoding.fit(dataset.items, config.text)
    encoding.save(directory / ITEM_TOWER)
    towers = build_model(dataset, config, encoding)
    embedded = time.monotonic()
    epochs = fit_towers(towers, config.training, split, checkpoint, launch)
    item_inputs, item_vectors = item_arrays(towers)
    trained = time.monotonic()
    index = FAISSIndex.build(item_vectors, config.faiss, ids=dataset.item_ids.ids.to_list(), seed=config.training.seed)
    tower = export_tower(towers, item_inputs, directory / USER_TOWER)
    item_tower = finish_item_tower(towers, directory / ITEM_TOWER)
    regularisation = choose_regularisation(validation_task(split), dataset.n_items)
    unranked = TrainedModel(
        tower, index, dataset.items["categories"], regularisation, split.repeats, epochs=tuple(epochs)
    )
    ranker = None
    if config.ctr.model_type != "none":
        ranker = teach_ranker(unranked, item_tower, dataset, config, split, log_url)
    seconds = {
        "features and text embeddings": embedded - started,
        "towers": trained - embedded,
        "index and re-ranker": time.monotonic() - trained,
    }
    return replace(unranked, ranker=ranker, seconds_by_stage=seconds)


def help_to_train(
    dataset: RecommendationDataset, config: ModelConfig, model_dir: Path, split: Split | None, launch: Launch
) -> None:
    """Train the towers together with the process that publishes them; torchrun has started both.

    Args:
        dataset: the same as there, as are the others.
        config: model_config.yaml.
        model_dir: the registry of versions; nothing is written.
        split: the parts; without it they are cut as `config.evaluation` says.
        launch: whether to go on from the checkpoint.
    """
    split = replace(split or make_split(dataset, config), repeats=config.data.repeat_items)
    fit_towers(build_model(dataset, config), config.training, split, model_dir / CHECKPOINT, launch)


def make_split(dataset: RecommendationDataset, config: ModelConfig) -> Split:
    """Return the split that the settings ask for.

    Raises:
        DataError: if the data cannot be split in time.
    """
    return replace(_cut(dataset, config), repeats=config.data.repeat_items)


def _cut(dataset: RecommendationDataset, config: ModelConfig) -> Split:
    settings = config.evaluation
    if settings.split == "temporal":
        return temporal_split(dataset.interactions, settings.test_share, settings.validation_share)
    if settings.split == "random":
        shares = settings.test_share, settings.validation_share
        return random_split(dataset.interactions, *shares, seed=config.training.seed)
    return leave_one_out(dataset.interactions)


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
