"""Training from data to a published version."""

from pathlib import Path

import pytest
from conftest import interactions_frame, items_frame, tiny_config

from rec_engine.bundle import open_bundle
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import test_task as task_of
from rec_engine.pipeline.evaluate import evaluate_baselines, evaluate_bundle
from rec_engine.pipeline.train import train


@pytest.mark.parametrize(("encoder", "index_type"), [("sasrec", "Flat"), ("mean", "HNSW"), ("none", "Flat")])
def test_every_encoder_trains_and_serves(
    dataset: RecommendationDataset, tmp_path: Path, encoder: str, index_type: str
) -> None:
    config = tiny_config(model={"user_encoder": encoder}, faiss={"index_type": index_type}, training={"num_epochs": 1})
    train(dataset, config, tmp_path, name="small world")
    bundle = open_bundle(tmp_path)
    found = evaluate_bundle(bundle, task_of(bundle.split), (10,))
    assert len(found[0].user_codes) == dataset.n_users
    assert bundle.index.settings.index_type == index_type


@pytest.mark.parametrize("split", ["leave_one_out", "temporal", "random"])
def test_every_split_is_measured(dataset: RecommendationDataset, tmp_path: Path, split: str) -> None:
    config = tiny_config(
        evaluation={"split": split, "test_share": 0.2, "validation_share": 0.2}, training={"num_epochs": 1}
    )
    report = train(dataset, config, tmp_path, name="small world")
    assert len(report.evaluations[0].user_codes) > 0
    assert open_bundle(tmp_path).manifest.split.replace("-", "_").startswith(split)


def test_the_towers_learn_what_even_and_odd_users_like(dataset: RecommendationDataset, tmp_path: Path) -> None:
    train(
        dataset, tiny_config(training={"num_epochs": 15, "early_stopping_patience": 15}), tmp_path, name="small world"
    )
    bundle = open_bundle(tmp_path)
    task = task_of(bundle.split)
    by_name = {found.name: found.mean("hit_rate@10") for found in evaluate_baselines(bundle.split, task, 40, (10,))}
    towers = evaluate_bundle(bundle, task, (10,))[0].mean("hit_rate@10")
    assert towers > by_name["popularity"]
    assert towers > 0.9


def test_no_ranker_is_made_when_none_is_wanted(dataset: RecommendationDataset, tmp_path: Path) -> None:
    train(dataset, tiny_config(ctr={"model_type": "none"}, training={"num_epochs": 1}), tmp_path, name="small world")
    bundle = open_bundle(tmp_path)
    assert bundle.ranker is None
    assert not (bundle.manifest.sha256_by_file.keys() & {"ranker.txt"})


def test_one_user_can_be_trained_on(tmp_path: Path) -> None:
    one = RecommendationDataset(interactions_frame().filter(user_id=1), None, items_frame())
    train(one, tiny_config(training={"num_epochs": 1}), tmp_path, name="one user")
    assert len(open_bundle(tmp_path).user_ids) == 1


def test_two_interactions_a_user_leave_nothing_to_hold_out_and_train_all_the_same(tmp_path: Path) -> None:
    pairs = interactions_frame().group_by("user_id", maintain_order=True).head(2)
    report = train(RecommendationDataset(pairs, None, items_frame()), tiny_config(), tmp_path, name="pairs")
    assert len(report.epochs) == 3
    assert open_bundle(tmp_path).metrics == {}


def test_one_interaction_a_user_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    singles = RecommendationDataset(interactions_frame().unique("user_id", keep="first"), None, items_frame())
    with pytest.raises(TrainingError, match="no user has two"):
        train(singles, tiny_config(), tmp_path / "models", name="singles")
    assert not list(tmp_path.rglob("*"))
