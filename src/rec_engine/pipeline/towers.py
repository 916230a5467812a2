"""An untrained model for a dataset: the attributes of users and items, and what items are about, as its inputs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from rec_engine.data.dataset import FloatArray, RecommendationDataset
from rec_engine.data.splits import Split
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models.attributes import AttributeEncoder, attribute_matrix
from rec_engine.models.content import Whitening, item_texts
from rec_engine.models.embeddings import ContentEmbedder
from rec_engine.models.export import export_item_tower, export_text_encoder
from rec_engine.models.item_tower import ATTRIBUTES, NETWORK, TEXT_ENCODER, WHITENING, ItemTower
from rec_engine.models.processes import joined
from rec_engine.models.training import TwoTowerTrainer
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import ModelConfig, TextSettings, TrainingSettings


@dataclass(frozen=True, slots=True)
class Launch:
    """How a training run is started.

    Attributes:
        resume: go on from the checkpoint of an interrupted run with the same data and settings.
        ray_workers: workers of Ray that train the towers; 0 for this process, and those that torchrun started with it.
    """

    resume: bool = False
    ray_workers: int = 0


ALONE = Launch()
"""From the start, without Ray."""


@dataclass(frozen=True, slots=True)
class ItemEncoding:
    """What the towers read of items, and how items that come later get the same.

    Attributes:
        attributes: the table's columns to features.
        embedder: texts to embeddings; None where no text is read.
        whitening: embeddings to what the item tower reads of them.
        features: (n_items, n_features) float32.
        text: (n_items, text_dim) float32; text_dim is 0 without texts.
    """

    attributes: AttributeEncoder
    embedder: ContentEmbedder | None
    whitening: Whitening
    features: FloatArray
    text: FloatArray

    @classmethod
    def fit(cls, items: pl.DataFrame, settings: TextSettings) -> "ItemEncoding":
        """Return the encoding of a table of items, fitted on it.

        Raises:
            TrainingError: if there is no such text encoder.
        """
        attributes, texts = AttributeEncoder.fit(items), item_texts(items)
        embedder = ContentEmbedder(settings) if settings.encoder != "none" and any(texts) else None
        embeddings = embedder.embed(texts) if embedder else np.zeros((items.height, 0), dtype=np.float32)
        whitening = Whitening.fit(embeddings, settings.dim)
        return cls(attributes, embedder, whitening, attributes.matrix(items), whitening.apply(embeddings))

    def save(self, directory: Path) -> None:
        """Write into a new directory all that an ItemTower consists of, but for the network.

        To be called before a model is trained: an encoder that cannot be served shall not cost hours.

        Raises:
            TrainingError: if the text encoder cannot be exported.
        """
        directory.mkdir(parents=True)
        (directory / ATTRIBUTES).write_bytes(self.attributes.to_json())
        self.whitening.save(directory / WHITENING)
        if self.embedder:
            export_text_encoder(self.embedder, directory / TEXT_ENCODER)


def build_model(
    dataset: RecommendationDataset, config: ModelConfig, encoding: ItemEncoding | None = None
) -> TwoTowerModel:
    """Return an untrained model for a dataset: seeded, with the attributes of users and items as features.

    Args:
        dataset: what is known.
        config: model_config.yaml.
        encoding: of the dataset's items, where the caller needs it too.
    """
    encoding = encoding or ItemEncoding.fit(dataset.items, config.text)
    torch.manual_seed(config.training.seed)
    return TwoTowerModel(
        num_users=dataset.n_users,
        num_items=dataset.n_items,
        user_features=torch.from_numpy(attribute_matrix(dataset.users)),
        item_features=torch.from_numpy(encoding.features),
        text_embeddings=torch.from_numpy(encoding.text),
        **config.model.model_dump(),
    )


def fit_towers(
    model: TwoTowerModel, settings: TrainingSettings, split: Split, checkpoint: Path | None, launch: Launch
) -> list[EpochRecord]:
    """Train the towers, alone or together with other processes, and return the epochs' records.

    Args:
        model: what to train, in place.
        settings: the `training:` section.
        split: what to learn from and when to stop.
        checkpoint: where a run that is interrupted can be taken up; Ray's workers need it.
        launch: how the run is started.

    Raises:
        TrainingError: if there is nothing to learn, or processes do not agree.
        ConfigError: if Ray is asked for and not here.
    """
    if launch.ray_workers and checkpoint:
        # Only who asks for Ray loads it.
        from rec_engine.pipeline.on_ray import TrainingJob, train_on_ray

        job = TrainingJob(model, settings, split.train, validation_task(split), checkpoint.resolve())
        return train_on_ray(job, launch.ray_workers, resume=launch.resume)
    with joined(settings.device):
        trainer = TwoTowerTrainer(model, settings, checkpoint=checkpoint)
        return trainer.fit(split.train, validation_task(split), resume=launch.resume)


def finish_item_tower(model: TwoTowerModel, directory: Path) -> ItemTower:
    """Write the trained network beside what `ItemEncoding.save` wrote, and return what serves it."""
    export_item_tower(model, directory / NETWORK)
    return ItemTower.load(directory)
