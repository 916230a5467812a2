"""Texts become vectors once; whitening makes them tell items apart."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rec_engine.errors import TrainingError
from rec_engine.models.content import Whitening, item_texts
from rec_engine.models.embeddings import ContentEmbedder
from rec_engine.utils.config import TextSettings

TEXTS = ["A film about dogs", "", "A film about puppies", "Quarterly tax law", "A film about dogs"]


@pytest.mark.filterwarnings("default")
def test_the_packaged_encoder_knows_what_is_alike_and_embeds_each_text_once(tmp_path: Path) -> None:
    embedder = ContentEmbedder(TextSettings(), tmp_path)
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (5, 384)
    assert not vectors[1].any()
    assert np.allclose(np.linalg.norm(vectors[[0, 2, 3]], axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[3] + 0.2
    assert np.array_equal(vectors[0], vectors[4])
    (stored,) = tmp_path.iterdir()
    assert pl.read_parquet(stored).height == 3
    again = ContentEmbedder(TextSettings(), tmp_path)
    assert np.array_equal(again.embed(TEXTS), vectors)
    assert "model" not in vars(again)


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be loaded"):
        ContentEmbedder(TextSettings(encoder=str(tmp_path)), tmp_path).embed(["x"])


def test_texts_hold_what_an_item_has() -> None:
    items = pl.DataFrame(
        {
            "title": ["Alien", None, None],
            "description": ["A ship.", "Only this", None],
            "categories": [["Horror", "SciFi"], [], None],
        },
        schema={"title": pl.String, "description": pl.String, "categories": pl.List(pl.String)},
    )
    assert item_texts(items) == ["Alien. A ship. Categories: Horror, SciFi", "Only this", ""]


def test_whitened_vectors_are_uncorrelated_of_equal_variance_and_length_one() -> None:
    rng = np.random.default_rng(0)
    narrow = (5 + rng.standard_normal((500, 8)) * np.arange(1, 9) * 0.1).astype(np.float32)
    whitening = Whitening.fit(narrow, 4)
    raw = (narrow - whitening.mean) @ whitening.components
    assert np.allclose(np.cov(raw.T), np.eye(4), atol=0.02)
    unit = whitening.apply(np.concatenate([narrow, np.zeros((1, 8), np.float32)]))
    assert np.allclose(np.linalg.norm(unit[:-1], axis=1), 1, atol=1e-5)
    assert not unit[-1].any()
    assert Whitening.fit(np.zeros((3, 8), np.float32), 4).apply(narrow).shape == (500, 0)
