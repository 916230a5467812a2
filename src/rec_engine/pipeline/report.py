"""The table that says how good a model is: beside baselines that were tuned with the same care, on the same targets."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.dataset import FloatArray, IntArray, Interactions
from rec_engine.data.splits import Split
from rec_engine.data.targets import load_targets
from rec_engine.errors import DataError, TrainingError
from rec_engine.evaluation.evaluator import (
    Evaluation,
    Recommender,
    Task,
    evaluate,
    rank_by_score,
    test_task,
    validation_task,
)
from rec_engine.models.baselines import BASELINES, Baseline, Setting
from rec_engine.models.lightgbm_ranker import CTRRanker
from rec_engine.models.links import fit_links
from rec_engine.models.user_tower import UserTower
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.serving.inference import Knowledge, RecommendationInference, as_recommender
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

TUNED_FOR = "ndcg@10"

logger = get_logger(__name__)


def report_on(
    models: Sequence[tuple[str, Path]], test_data: Path | None, ks: Sequence[int]
) -> tuple[list[Evaluation], str]:
    """Return evaluations and a title: of one model beside every baseline, or of several models beside each other.

    Args:
        models: name (empty for a single model) and directory of each; the first one's data decides the targets.
        test_data: later interactions of the same users; without it the test part that was kept from training.
        ks: list lengths.

    Raises:
        BundleError: if a model cannot be opened.
        DataError: if the models are of different data.
    """
    bundles = [(name, open_bundle(directory)) for name, directory in models]
    first = bundles[0][1]
    task = _task(first, test_data)
    title = f"{first.manifest.dataset}, {task.name}: {len(np.unique(task.targets.user_codes)):,} users, full catalogue"
    evaluations = [] if models[0][0] else evaluate_baselines(first.split, task, len(first.item_ids), ks)
    for name, bundle in bundles:
        if bundle.manifest.dataset_fingerprint != first.manifest.dataset_fingerprint:
            raise DataError(
                f"{bundle.version} was trained on other data than {first.version}",
                hint="only models of the same dataset can be compared",
            )
        found = evaluate_bundle(bundle, task, ks)
        evaluations += [replace(each, name=f"{name}: {each.name}") for each in found[-1:]] if name else found
    return evaluations, title


def reported_task(split: Split) -> Task:
    """Return the test part's task; the validation part's, under its own name, where nothing was kept for testing."""
    return test_task(split) if len(split.test) else validation_task(split)


def evaluate_baselines(split: Split, task: Task, n_items: int, ks: Sequence[int]) -> list[Evaluation]:
    """Return every baseline on the task: fitted on the training part, with the setting that validation likes best."""
    found = (evaluate_tuned(kind, split, task, n_items, ks) for kind in BASELINES.values())
    return [evaluation for evaluation in found if evaluation is not None]


def evaluate_bundle(bundle: ModelBundle, task: Task, ks: Sequence[int]) -> list[Evaluation]:
    """Return the towers alone and, where the bundle has a ranker, the whole request path on the task."""
    return measure(task, bundle.user_tower, bundle.index, bundle.items["categories"], bundle.ranker, ks)


def measure(  # noqa: PLR0913 - the parts of a model, and how long the lists are
    task: Task,
    tower: UserTower,
    index: FAISSIndex,
    categories: pl.Series,
    ranker: CTRRanker | None,
    ks: Sequence[int] = (5, 10, 20),
) -> list[Evaluation]:
    """Return how the towers alone and, with a ranker, the whole request path do on a task."""
    n_items = len(index.vectors)
    alone = tower_recommender(tower, index, task)
    evaluations = [evaluate("two-tower", alone, task, n_items=n_items, ks=ks)]
    if ranker:
        served = as_recommender(assemble_path(tower, index, categories, task.history, ranker), task)
        evaluations.append(evaluate("two-tower + re-ranking", served, task, n_items=n_items, ks=ks))
    return evaluations


def assemble_path(
    tower: UserTower, index: FAISSIndex, categories: pl.Series, known: Interactions, ranker: CTRRanker | None = None
) -> RecommendationInference:
    """Return the request path as it would have been when only `known` had happened: later figures would be a leak."""
    knowledge = Knowledge.of(known, fit_links(known, len(index.vectors)))
    return RecommendationInference.assemble(
        tower, index, categories, knowledge=knowledge, ranker=ranker, settings=RecommendationSettings()
    )


def tower_recommender(tower: UserTower, index: FAISSIndex, task: Task) -> Recommender:
    """Return the towers alone, ranking the whole catalogue exactly, without the items of the history."""
    now = task.request_times()

    def score(user_codes: IntArray) -> FloatArray:
        scores: FloatArray = tower.vectors(task.history, user_codes, now) @ index.vectors.T
        return scores

    return rank_by_score(score, task.history)


def _task(bundle: ModelBundle, test_data: Path | None) -> Task:
    if test_data is None:
        return reported_task(bundle.split)
    targets = load_targets(test_data, bundle.user_ids, bundle.item_ids, bundle.config.data)
    return Task(test_data.name, bundle.history, targets)


def evaluate_tuned(
    kind: type[Baseline], split: Split, task: Task, n_items: int, ks: Sequence[int]
) -> Evaluation | None:
    """Return the setting that validation likes best, fitted on all that is known before the task, on the task.

    None where the baseline cannot be fitted on this data.
    """
    started = time.monotonic()
    try:
        setting = best_setting(kind, validation_task(split), n_items)
        model = kind(**setting)
        model.fit(task.history, n_items)
    except TrainingError as error:
        logger.warning("%s is left out: %s", kind.name, error)
        return None
    seconds = time.monotonic() - started
    logger.info("%s: %s, tuned and fitted in %.1f s", kind.name, setting or "nothing to tune", seconds)
    recommend = rank_by_score(model.scorer(task.history), task.history)
    return evaluate(kind.name, recommend, task, n_items=n_items, ks=ks, fit_seconds=seconds)


def best_setting(kind: type[Baseline], validation: Task, n_items: int) -> Setting:
    """Return the setting of the baseline's grid with the highest NDCG@10 on the validation task."""
    if len(kind.GRID) == 1:
        return kind.GRID[0]
    reached = []
    for setting in kind.GRID:
        model = kind(**setting)
        model.fit(validation.history, n_items)
        recommend = rank_by_score(model.scorer(validation.history), validation.history)
        found = evaluate(f"{kind.name} {setting}", recommend, validation, n_items=n_items, ks=(10,))
        reached.append(float(np.nan_to_num(found.mean(TUNED_FOR))))
    return kind.GRID[int(np.argmax(reached))]
