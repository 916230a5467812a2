"""A bundle is whole or refused; a version is complete or not there."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import promote, tiny_config

from rec_engine.bundle import find_bundle, new_version, open_bundle
from rec_engine.data.dataset import IntArray, RecommendationDataset
from rec_engine.errors import BundleError
from rec_engine.pipeline.train import train


@pytest.fixture
def copy(model_dir: Path, tmp_path: Path) -> Path:
    """A registry that a test may damage."""
    return Path(shutil.copytree(model_dir, tmp_path / "models"))


def test_bundle_holds_what_it_was_trained_on(model_dir: Path, dataset: RecommendationDataset) -> None:
    bundle = open_bundle(model_dir)
    assert bundle.manifest.dataset_fingerprint == dataset.fingerprint
    assert np.array_equal(bundle.history.item_codes, dataset.interactions.item_codes)
    assert bundle.items.equals(dataset.items)
    assert bundle.users.equals(dataset.users)
    assert len(bundle.split.test) > 0


def test_a_version_can_be_opened_by_its_own_directory(model_dir: Path) -> None:
    assert open_bundle(find_bundle(model_dir)).version == open_bundle(model_dir).version


def test_every_file_is_guarded_by_its_checksum(copy: Path) -> None:
    directory = find_bundle(copy)
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    assert len(files) >= 10
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleError, match=file.name):
            open_bundle(copy)
        file.write_bytes(content)
    open_bundle(copy)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("history/history/item_codes.npy", lambda codes: codes + 1_000),
        ("history/history/starts.npy", lambda starts: starts[:-1]),
        ("history/history/starts.npy", lambda starts: starts[::-1]),
        ("history/history/weights.npy", lambda weights: weights[1:]),
        ("links/next/indptr.npy", lambda starts: np.append(starts, starts[-1])),
    ],
)
def test_parts_of_other_users_or_items_are_refused_though_their_checksums_hold(
    copy: Path, file: str, change: Callable[[IntArray], IntArray]
) -> None:
    path = find_bundle(copy) / file
    np.save(path, change(np.load(path)))
    with pytest.raises(BundleError, match="not of this version's users and items"):
        open_bundle(copy, verified=find_bundle(copy).name)


def test_missing_file_is_named(copy: Path) -> None:
    (find_bundle(copy) / "items.parquet").unlink()
    with pytest.raises(BundleError, match="items.parquet.*missing"):
        open_bundle(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1}'])
def test_unreadable_manifest_is_refused(copy: Path, text: str) -> None:
    (find_bundle(copy) / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="manifest"):
        open_bundle(copy)


def test_other_format_version_is_refused(copy: Path) -> None:
    manifest = find_bundle(copy) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 99}))
    with pytest.raises(BundleError, match="format version 99"):
        open_bundle(copy)


def test_no_model_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no trained model"):
        open_bundle(tmp_path)


def test_current_that_names_nothing_is_said_so(tmp_path: Path) -> None:
    promote(tmp_path, "gone")
    with pytest.raises(BundleError, match="gone"):
        open_bundle(tmp_path)


def test_a_version_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        _write_half(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _write_half(model_dir: Path) -> None:
    with new_version(model_dir, "v1") as directory:
        (directory / "file").write_text("half")
        raise RuntimeError("half way")


def test_left_overs_of_a_killed_run_are_removed_and_those_of_a_running_one_are_not(tmp_path: Path) -> None:
    for name, age_seconds in (("old", 2 * 86_400), ("running", 60)):
        (tmp_path / f".partial-{name}").mkdir()
        os.utime(tmp_path / f".partial-{name}", (time.time() - age_seconds,) * 2)
    with new_version(tmp_path, "v1"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-running", "v1"]


def test_same_seed_gives_the_same_vectors_and_metrics(
    dataset: RecommendationDataset, model_dir: Path, tmp_path: Path
) -> None:
    train(dataset, tiny_config(), tmp_path, name="small world")
    first, second = open_bundle(model_dir), open_bundle(tmp_path)
    assert np.array_equal(first.index.vectors, second.index.vectors)
    assert first.metrics == second.metrics
