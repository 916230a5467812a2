"""What items are about: their texts, and the embeddings of these made comparable. No text is encoded here."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import polars as pl

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import BundleError

MIN_DEVIATION = 1e-3
"""Directions of the embedding space with less than this share of the largest deviation are noise, not meaning."""


def item_texts(items: pl.DataFrame) -> list[str]:
    """Return one text an item: title, description and categories, whatever it has of them; "" for nothing."""
    categories = pl.col("categories").cast(pl.List(pl.String)).list.join(", ")
    parts = [
        pl.col("title").cast(pl.String).str.strip_chars(" ."),
        pl.col("description").cast(pl.String).str.strip_chars(" ."),
        pl.when(categories.str.len_chars() > 0).then(pl.lit("Categories: ") + categories),
    ]
    joined: list[str] = items.select(pl.concat_str(parts, separator=". ", ignore_nulls=True))["title"].to_list()
    return joined


@dataclass(frozen=True, slots=True)
class Whitening:
    """The map from embeddings to fewer, uncorrelated numbers of equal variance, scaled to length 1.

    Embeddings of one shop's items all point the same way, with cosines near 0.8; whitened ones tell the items apart.

    Attributes:
        mean: (embedding_dim,) float32.
        components: (embedding_dim, dim) float32, principal directions over their standard deviations.

    References:
        Zhang et al., Are ID embeddings necessary? Whitening pre-trained text embeddings, 2024 (arXiv 2402.10602).
    """

    mean: FloatArray
    components: FloatArray

    @classmethod
    def fit(cls, embeddings: FloatArray, dim: int) -> "Whitening":
        """Return the whitening of (n, embedding_dim) embeddings to at most `dim` numbers; zero rows do not count."""
        known = embeddings[np.abs(embeddings).sum(axis=1) > 0].astype(np.float64)
        if not len(known):
            return cls(np.zeros(embeddings.shape[1], np.float32), np.zeros((embeddings.shape[1], 0), np.float32))
        mean = known.mean(axis=0)
        _, singular, directions = np.linalg.svd(known - mean, full_matrices=False)
        kept = np.flatnonzero(singular > MIN_DEVIATION * singular[0])[:dim]
        scale = np.sqrt(len(known)) / singular[kept]
        return cls(mean.astype(np.float32), (directions[kept].T * scale).astype(np.float32))

    @property
    def dim(self) -> int:
        """Width of what comes out."""
        return int(self.components.shape[1])

    def apply(self, embeddings: FloatArray) -> FloatArray:
        """Return (n, dim) float32 of length 1; zero rows stay zero."""
        whitened = (embeddings - self.mean) @ self.components
        whitened[np.abs(embeddings).sum(axis=1) == 0] = 0
        lengths = np.linalg.norm(whitened, axis=1, keepdims=True)
        unit: FloatArray = (whitened / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return unit

    def save(self, path: Path) -> None:
        """Write mean and components as an .npz file."""
        np.savez(path, allow_pickle=False, mean=self.mean, components=self.components)

    @classmethod
    def load(cls, path: Path) -> "Whitening":
        """Return what `save` wrote.

        Raises:
            BundleError: if the file is not there or is not a whitening's.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["mean"], stored["components"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise BundleError(f"{path}: not a readable whitening ({error})", hint="train again") from None
