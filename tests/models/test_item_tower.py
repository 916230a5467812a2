"""An item that training never saw becomes the vector that training would have given it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import tiny_config

from rec_engine.data.dataset import FloatArray, RecommendationDataset
from rec_engine.errors import BundleError
from rec_engine.models.export import item_arrays
from rec_engine.models.item_tower import ATTRIBUTES, TEXT_ENCODER, WHITENING, ItemTower
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.pipeline.towers import ItemEncoding, build_model, finish_item_tower

THINGS = ["lamp", "teapot", "blanket", "garden spade", "toy train", "notebook", "umbrella", "guitar", "bicycle", "soap"]
COLD = np.array([1, 8, 17, 22, 30])


@pytest.fixture(scope="module")
def dataset() -> RecommendationDataset:
    """Forty described items; the towers below know five of them by their descriptions alone."""
    n_items = 4 * len(THINGS)
    items = pl.DataFrame(
        {
            "item_id": range(n_items),
            "title": [f"{('Red', 'Blue', 'Old', 'Small')[item % 4]} {THINGS[item // 4]}" for item in range(n_items)],
            "description": [None if item % 7 else "Made by hand, and sent the same day." for item in range(n_items)],
            "categories": [["Home"] * (item % 2) + ["Gift"] * (item % 3) for item in range(n_items)],
            "brand": [f"brand {item % 5}" for item in range(n_items)],
            "price": [None if item == 17 else 1.0 + item for item in range(n_items)],
            "size": [item % 4 for item in range(n_items)],
            "is_new": [item % 3 == 0 for item in range(n_items)],
        }
    )
    met = pl.DataFrame({"user_id": [item % 6 for item in range(n_items)], "item_id": range(n_items), "timestamp": 1})
    return RecommendationDataset(met, None, items)


@pytest.fixture(scope="module", params=["minilm", "none"])
def trained(
    request: pytest.FixtureRequest, dataset: RecommendationDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TwoTowerModel, ItemEncoding, Path]:
    """Towers with arbitrary weights, what they read of the items, and the directory of the exported item tower."""
    config = tiny_config(text={"encoder": request.param, "dim": 8}, model={"tower_dims": [24, 12]})
    directory = tmp_path_factory.mktemp("bundle") / "item_tower"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp()))
        encoding = ItemEncoding.fit(dataset.items, config.text)
        encoding.save(directory)
    model = build_model(dataset, config, encoding)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.known_items[COLD] = False
    finish_item_tower(model, directory)
    return model, encoding, directory


def _cosines(left: FloatArray, right: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: FloatArray = (left * right).sum(axis=1) / lengths
    return cosines


def test_a_cold_item_gets_its_row_of_training(
    trained: tuple[TwoTowerModel, ItemEncoding, Path], dataset: RecommendationDataset
) -> None:
    model, encoding, directory = trained
    expected = item_arrays(model)
    found = ItemTower.load(directory).encode(dataset.items[COLD])
    assert np.allclose(np.linalg.norm(found[1], axis=1), 1, atol=1e-5)
    for mine, training in zip(found, expected, strict=True):
        assert mine.dtype == np.dtype(np.float32)
        if encoding.embedder:
            assert _cosines(mine, training[COLD]).min() > 0.99
        else:
            assert np.allclose(mine, training[COLD], atol=1e-5)


def test_from_the_embeddings_of_training_come_the_vectors_of_training(
    trained: tuple[TwoTowerModel, ItemEncoding, Path], dataset: RecommendationDataset
) -> None:
    model, encoding, directory = trained
    tower = ItemTower.load(directory)
    feed = {"item_features": tower.attributes.matrix(dataset.items[COLD]), "text": encoding.text[COLD]}
    for mine, training in zip(tower.session.run(None, feed), item_arrays(model), strict=True):
        assert np.allclose(mine, training[COLD], atol=1e-5)


def test_an_item_is_encoded_alone_as_among_others(
    trained: tuple[TwoTowerModel, ItemEncoding, Path], dataset: RecommendationDataset
) -> None:
    tower = ItemTower.load(trained[2])
    together = tower.encode(dataset.items)
    for code in COLD.tolist():
        for alone, of_all in zip(tower.encode(dataset.items[code : code + 1]), together, strict=True):
            assert np.allclose(alone[0], of_all[code], atol=1e-5)


def test_items_of_which_little_or_odd_things_are_said_are_encoded_too(
    trained: tuple[TwoTowerModel, ItemEncoding, Path], dataset: RecommendationDataset
) -> None:
    tower = ItemTower.load(trained[2])
    bare = pl.DataFrame({"item_id": ["new"], "title": ["Lamp"], "description": [None], "categories": [[]]})
    odd = bare.with_columns(brand=pl.lit(7), price=pl.lit("cheap"), size=pl.lit("XL"), weight=pl.lit(3.0))
    for with_less, with_more in zip(tower.encode(bare), tower.encode(odd), strict=True):
        assert np.isfinite(with_less).all()
        assert np.array_equal(with_less, with_more)
    inputs, vectors = tower.encode(dataset.items[:0])
    assert (inputs.shape, vectors.shape) == ((0, 16), (0, 12))


def test_only_a_tower_that_reads_texts_holds_an_encoder(trained: tuple[TwoTowerModel, ItemEncoding, Path]) -> None:
    _, encoding, directory = trained
    assert (directory / TEXT_ENCODER).is_dir() == (encoding.embedder is not None)


@pytest.mark.parametrize("name", [ATTRIBUTES, WHITENING])
@pytest.mark.parametrize("stored", [None, b"", b"nonsense"])
def test_a_damaged_tower_is_refused(
    trained: tuple[TwoTowerModel, ItemEncoding, Path], tmp_path: Path, name: str, stored: bytes | None
) -> None:
    damaged = shutil.copytree(trained[2], tmp_path / "damaged")
    if stored is None:
        (damaged / name).unlink()
    else:
        (damaged / name).write_bytes(stored)
    with pytest.raises(BundleError, match="readable"):
        ItemTower.load(damaged)


def test_encoding_an_item_loads_nothing_of_the_training_stack(
    trained: tuple[TwoTowerModel, ItemEncoding, Path],
) -> None:
    code = f"""
import sys
from pathlib import Path
import polars as pl
from rec_engine.models.item_tower import ItemTower
items = pl.DataFrame({{"title": ["Green lamp"], "description": ["New"], "categories": [["Home"]]}})
inputs, vectors = ItemTower.load(Path({str(trained[2])!r})).encode(items)
assert vectors.shape == (1, 12)
print(*sorted({{"torch", "onnx", "onnxscript", "sentence_transformers", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
