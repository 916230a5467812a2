"""The table that says how good a model is: beside baselines that were tuned with the same care, on the same targets."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import FloatArray, IntArray, Interactions
from rec_engine.data.item_looks import ItemLooks
from rec_engine.data.showings import NO_SHOWINGS, ShowingLog
from rec_engine.data.splits import Split
from rec_engine.errors import TrainingError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import (
    Evaluation,
    Recommender,
    Task,
    evaluate,
    rank_by_score,
    some_users,
    test_task,
    validation_task,
)
from rec_engine.models.baselines import BASELINES, EASE, MAX_EASE_ITEMS, Baseline, OwnHistory, Setting
from rec_engine.models.lightgbm_ranker import CTRRanker
from rec_engine.models.links import fit_links
from rec_engine.models.user_tower import UserTower
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.serving.inference import Knowledge, RecommendationInference, as_recommender
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

TUNED_FOR = "ndcg@10"
MAX_VALIDATION_USERS, MAX_JUDGING_USERS = 10_000, 2_000

logger = get_logger(__name__)


def reported_task(split: Split) -> Task:
    """Return the test part's task; the validation part's, under its own name, where nothing was kept for testing."""
    return test_task(split) if len(split.test) else validation_task(split)


def evaluate_baselines(split: Split, task: Task, n_items: int, ks: Sequence[int]) -> list[Evaluation]:
    """Return every baseline on the task: fitted on the training part, with the setting that validation likes best."""
    kinds = [*BASELINES.values(), *([OwnHistory] if task.repeats else [])]
    found = (evaluate_tuned(kind, split, task, n_items, ks) for kind in kinds)
    return [evaluation for evaluation in found if evaluation is not None]


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What training makes, or what of a bundle takes part in a request.

    Attributes:
        tower: histories to user vectors.
        index: search among the item vectors.
        categories: of each item, a list.
        ease_regularisation: of the links between similar items.
        repeats: whether a user may be shown what he has met already.
        ranker: orders the candidates; None where none does it better than retrieval.
        epochs: of the towers' training.
        seconds_by_stage: what it cost.
    """

    tower: UserTower
    index: FAISSIndex
    categories: pl.Series
    ease_regularisation: float
    repeats: bool
    ranker: CTRRanker | None = None
    epochs: tuple[EpochRecord, ...] = ()
    seconds_by_stage: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: ModelBundle) -> "TrainedModel":
        """Return what of a bundle takes part in a request."""
        return cls(
            tower=bundle.user_tower,
            index=bundle.index,
            categories=bundle.items["categories"],
            ease_regularisation=bundle.manifest.ease_regularisation,
            repeats=bundle.repeats,
            ranker=bundle.ranker,
        )


def evaluate_bundle(bundle: ModelBundle, task: Task, ks: Sequence[int]) -> list[Evaluation]:
    """Return the towers alone and, where the bundle has a ranker, the whole request path on the task."""
    return measure(task, TrainedModel.of(bundle), ks)


def measure(task: Task, model: TrainedModel, ks: Sequence[int]) -> list[Evaluation]:
    """Return how the towers alone and, with a ranker, the whole request path do on a task."""
    n_items = len(model.index.vectors)
    evaluations = [evaluate("two-tower", tower_recommender(model, task), task, n_items=n_items, ks=ks)]
    if model.ranker:
        served = as_recommender(assemble_path(model, task.history, task.shown), task)
        evaluations.append(evaluate("two-tower + re-ranking", served, task, n_items=n_items, ks=ks))
    return evaluations


def assemble_path(
    model: TrainedModel, known: Interactions, shown: ShowingLog = NO_SHOWINGS, until: int | None = None
) -> RecommendationInference:
    """Return the request path as it would have been when only `known` had happened: later figures would be a leak.

    Args:
        model: its parts.
        known: what had happened.
        shown: what everybody was shown; later showings do not count.
        until: Unix seconds up to which nothing else had; the last interaction's without it.
    """
    links = fit_links(known, len(model.index.vectors), model.ease_regularisation)
    return RecommendationInference.assemble(
        model.tower,
        model.index,
        Catalogue.of_categories(model.categories),
        knowledge=Knowledge.of(known, links, ItemLooks.of(shown), until),
        ranker=model.ranker,
        settings=RecommendationSettings(),
        repeats=model.repeats,
    )


def tower_recommender(model: TrainedModel, task: Task) -> Recommender:
    """Return the towers alone, ranking the whole catalogue exactly, without the items of the history."""
    now = task.request_times()

    def score(user_codes: IntArray) -> FloatArray:
        scores: FloatArray = model.tower.vectors(task.history, user_codes, now) @ model.index.vectors.T
        return scores

    return rank_by_score(score, task.seen)


def evaluate_tuned(
    kind: type[Baseline], split: Split, task: Task, n_items: int, ks: Sequence[int]
) -> Evaluation | None:
    """Return the setting that validation likes best, fitted on all that is known before the task, on the task.

    None where the baseline cannot be fitted on this data.
    """
    started = time.monotonic()
    try:
        validation = some_users(validation_task(split), MAX_VALIDATION_USERS, seed=0)
        setting = best_setting(kind, validation, n_items)
        model = kind(**setting)
        model.fit(task.history, n_items)
    except TrainingError as error:
        logger.warning("%s is left out: %s", kind.name, error)
        return None
    seconds = time.monotonic() - started
    logger.info("%s: %s, tuned and fitted in %.1f s", kind.name, setting or "nothing to tune", seconds)
    recommend = rank_by_score(model.scorer(task.history), task.seen)
    return evaluate(kind.name, recommend, task, n_items=n_items, ks=ks, fit_seconds=seconds)


def choose_regularisation(validation: Task, n_items: int) -> float:
    """Return the regularisation with which EASE finds most of what validation holds; its default where it cannot."""
    if n_items > MAX_EASE_ITEMS or not len(validation.targets):
        return EASE().regularisation
    return best_setting(EASE, some_users(validation, MAX_JUDGING_USERS, seed=0), n_items)["regularisation"]


def best_setting(kind: type[Baseline], validation: Task, n_items: int) -> Setting:
    """Return the setting of the baseline's grid with the highest NDCG@10 on the validation task."""
    if len(kind.GRID) == 1:
        return kind.GRID[0]
    reached = []
    for setting in kind.GRID:
        model = kind(**setting)
        model.fit(validation.history, n_items)
        recommend = rank_by_score(model.scorer(validation.history), validation.seen)
        found = evaluate(f"{kind.name} {setting}", recommend, validation, n_items=n_items, ks=(10,))
        reached.append(float(np.nan_to_num(found.mean(TUNED_FOR))))
    return kind.GRID[int(np.argmax(reached))]
