"""What a training run finds out about its model."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import interactions_frame, items_frame, tiny_config

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.evaluation.evaluator import test_task as task_of
from rec_engine.pipeline.candidate_quality import ALL, inspect_candidates
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.pipeline.quality import examine
from rec_engine.pipeline.train import fit_model, make_split


@pytest.fixture(scope="module")
def trained(bundle: ModelBundle) -> TrainedModel:
    return TrainedModel.of(bundle)


def test_the_recall_of_all_sources_is_that_of_their_union(bundle: ModelBundle, trained: TrainedModel) -> None:
    task = task_of(bundle.split)
    sources, _ = inspect_candidates(assemble_path(trained, task.history), task)
    by_name = {source.name: source for source in sources}
    together = by_name.pop(ALL)
    assert together.recall == 1  # forty items: every one of them is a candidate
    assert max(source.recall for source in by_name.values()) <= together.recall
    assert sum(source.alone for source in by_name.values()) <= together.recall
    assert together.n_offered <= sum(source.n_offered for source in by_name.values())


@pytest.mark.parametrize(("split", "leaks"), [("temporal", False), ("leave_one_out", True)])
def test_features_know_the_future_only_where_the_split_lets_them(tmp_path: Path, split: str, leaks: bool) -> None:
    one_after_the_other = interactions_frame().with_columns(pl.col("timestamp") + pl.col("user_id") * 5 * 86_400)
    dataset = RecommendationDataset(one_after_the_other, None, items_frame())
    config = tiny_config(
        evaluation={"split": split, "test_share": 0.2, "validation_share": 0.2}, training={"num_epochs": 1}
    )
    parts = make_split(dataset, config)
    model = fit_model(dataset, config, parts, tmp_path)
    found = examine(model, dataset, parts, name="world", version="v", created_at=datetime.now(UTC))
    by_name = {leak.name: leak.found for leak in found.leaks}
    assert by_name["ranking features that know the future"] == leaks
    assert by_name["training rows later than what is to be found"] == leaks
    assert not by_name["rows in two parts"]


def test_everything_is_measured_on_the_same_users_and_costs_are_named(
    dataset: RecommendationDataset, tmp_path: Path
) -> None:
    config = tiny_config(training={"num_epochs": 2})
    parts = make_split(dataset, config)
    model = fit_model(dataset, config, parts, tmp_path)
    found = examine(model, dataset, parts, name="world", version="v", created_at=datetime.now(UTC))
    for evaluation in found.evaluations[1:]:
        assert np.array_equal(evaluation.user_codes, found.evaluations[0].user_codes)
    assert [epoch.epoch for epoch in found.epochs] == [1, 2]
    assert {"towers", "index and re-ranker"} < found.seconds_by_stage.keys()
    assert found.own[0] == "two-tower"
    assert found.profile.n_users == dataset.n_users
    assert found.peak_mib > 50
