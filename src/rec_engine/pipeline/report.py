"""The table that says how good a model is: beside baselines that were tuned with the same care, on the same targets."""

import time
from collections.abc import Sequence

import numpy as np

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import IntArray, Interactions
from rec_engine.data.splits import Split
from rec_engine.data.state import item_stats
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import (
    Evaluation,
    Recommender,
    Task,
    evaluate,
    rank_by_score,
    validation_task,
)
from rec_engine.models.baselines import BASELINES, Baseline
from rec_engine.models.features import item_table
from rec_engine.models.user_tower import UserTower
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.serving.inference import RecommendationInference, as_recommender, default_sources
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

TUNED_FOR = "ndcg@10"

logger = get_logger(__name__)


def evaluate_baselines(split: Split, task: Task, n_items: int, ks: Sequence[int] = (5, 10, 20)) -> list[Evaluation]:
    """Return every baseline on the task: fitted on the training part, with the setting that validation likes best."""
    return [
        found for kind in BASELINES.values() if (found := _evaluate_tuned(kind, split, task, n_items, ks)) is not None
    ]


def evaluate_bundle(bundle: ModelBundle, task: Task, ks: Sequence[int] = (5, 10, 20)) -> list[Evaluation]:
    """Return the towers alone and, where the bundle has a ranker, the whole request path on the task."""
    n_items = len(bundle.item_ids)
    alone = tower_recommender(bundle.user_tower, bundle.index, task.history)
    evaluations = [evaluate("two-tower", alone, task, n_items=n_items, ks=ks)]
    if bundle.ranker:
        served = as_recommender(inference_as_of(bundle, bundle.split.train), task.history)
        evaluations.append(evaluate("two-tower + re-ranking", served, task, n_items=n_items, ks=ks))
    return evaluations


def inference_as_of(bundle: ModelBundle, known: Interactions) -> RecommendationInference:
    """Return the bundle's request path with item statistics of `known` only: those of later days would be a leak."""
    stats = item_stats(known, len(bundle.item_ids), cut_off=int(known.timestamps.max()) + 1)
    settings = RecommendationSettings()
    sources = default_sources(bundle.user_tower, bundle.index, stats.n_users, settings.min_score_threshold)
    items = item_table(bundle.index.vectors, stats)
    return RecommendationInference(sources, bundle.categories, items, bundle.ranker, settings)


def tower_recommender(tower: UserTower, index: FAISSIndex, history: Interactions) -> Recommender:
    """Return the towers alone, ranking the whole catalogue exactly, without the items of the history."""

    def score(user_codes: IntArray) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return tower.vectors(history, user_codes) @ index.vectors.T

    return rank_by_score(score, history)


def _evaluate_tuned(
    kind: type[Baseline], split: Split, task: Task, n_items: int, ks: Sequence[int]
) -> Evaluation | None:
    """Return the best setting's result on the task; None where the baseline cannot be fitted on this data."""
    validation = validation_task(split)
    best, best_score, best_seconds = None, -1.0, 0.0
    for setting in kind.GRID:
        model = kind(**setting)
        started = time.monotonic()
        try:
            model.fit(split.train, n_items)
        except TrainingError as error:
            logger.warning("%s is left out: %s", kind.name, error)
            return None
        seconds = time.monotonic() - started
        if len(kind.GRID) == 1:
            best, best_seconds = model, seconds
            break
        recommend = rank_by_score(model.scorer(validation.history), validation.history)
        found = evaluate(f"{kind.name} {setting}", recommend, validation, n_items=n_items, ks=(10,))
        score = np.nan_to_num(found.mean(TUNED_FOR))
        if score > best_score:
            best, best_score, best_seconds = model, score, seconds
    if best is None:
        return None
    recommend = rank_by_score(best.scorer(task.history), task.history)
    return evaluate(kind.name, recommend, task, n_items=n_items, ks=ks, fit_seconds=best_seconds)
