"""An untrained model for a dataset: the attributes of users and items, and what items are about, as its inputs."""

import numpy as np
import polars as pl
import torch

from rec_engine.data.dataset import FloatArray, RecommendationDataset
from rec_engine.models.attributes import attribute_matrix
from rec_engine.models.embeddings import ContentEmbedder, Whitening, item_texts
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import ModelConfig, TextSettings


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
