"""Fitting the re-ranker: what serving would have shown before the validation part, and what was then taken."""

import numpy as np

from rec_engine.data.dataset import IntArray
from rec_engine.data.splits import Split
from rec_engine.data.state import state_of
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import Task, evaluate, validation_task
from rec_engine.evaluation.statistics import paired_bootstrap
from rec_engine.models.features import features
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.serving.inference import Query, RecommendationInference, as_recommender
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.logger import get_logger, with_progress

MAX_USERS = 10_000
HELD_OUT_SHARE = 0.3
SLATE = 10

logger = get_logger(__name__)


def fit_ranker(inference: RecommendationInference, split: Split, config: ModelConfig) -> CTRRanker | None:
    """Return a ranker that orders the candidates better than retrieval does, or None where none does.

    Three blocks in time: towers and statistics know the training part, the labels are the validation part, the test
    part stays untouched. A third of the users is kept apart: they stop the boosting, and on them the ranker has to win.

    Args:
        inference: the request path as of the end of the training part, without a ranker.
        split: where the labels come from.
        config: whose `ctr:` section applies.
    """
    if config.ctr.model_type == "none":
        return None
    task = validation_task(split)
    users = np.unique(task.targets.user_codes)
    rng = np.random.default_rng(config.training.seed)
    users = rng.permutation(users)[:MAX_USERS].astype(np.int32)
    n_held_out = int(len(users) * HELD_OUT_SHARE)
    held_out, learning = np.sort(users[:n_held_out]), np.sort(users[n_held_out:])
    try:
        ranker = CTRRanker.fit(
            ranker_rows(inference, task, learning),
            ranker_rows(inference, task, held_out),
            config.ctr,
            seed=config.training.seed,
        )
    except TrainingError as error:
        logger.warning("no re-ranker: %s", error)
        return None
    return ranker if _wins(inference, ranker, task, held_out) else None


def ranker_rows(inference: RecommendationInference, task: Task, user_codes: IntArray) -> RankerRows:
    """Return one row a candidate, made by the code that serves.

    Users whose target is not among their candidates are left out: they say nothing about the order.

    Raises:
        TrainingError: if nobody is left.
    """
    blocks, labels = [], []
    for user_code in with_progress(user_codes.tolist(), "ranking features"):
        query = Query(state_of(task.history, user_code), k=SLATE)
        candidates = inference.recommend(query).candidates
        taken = np.isin(candidates.item_codes, task.targets.items_of(user_code))
        if taken.any() and len(query.state.liked):
            blocks.append(features(query.state, candidates, inference.items))
            labels.append(taken.astype(np.float32))
    if not blocks:
        raise TrainingError("no validation item is among anybody's candidates", hint="set ctr.model_type: none")
    return RankerRows(np.concatenate(blocks), np.concatenate(labels))


def _wins(inference: RecommendationInference, ranker: CTRRanker, task: Task, user_codes: IntArray) -> bool:
    """Return whether the ranker's NDCG@10 on these users is above that of the order it was given."""
    chosen = task.targets.where(np.isin(task.targets.user_codes, user_codes))
    held_out = Task("held-out users", task.history, chosen)
    reached = []
    for candidate in (None, ranker):
        inference.ranker = candidate
        recommend = as_recommender(inference, task.history)
        found = evaluate("ranker check", recommend, held_out, n_items=len(inference.items.vectors), ks=(SLATE,))
        reached.append(found.per_user[f"ndcg@{SLATE}"])
    inference.ranker = None
    gain = paired_bootstrap(reached[1], reached[0]).absolute
    logger.info(
        "re-ranking changes NDCG@10 of %d held-out users by %+.4f [%+.4f, %+.4f]: %s",
        *(len(user_codes), gain.mean, gain.low, gain.high, "kept" if gain.mean > 0 else "left out"),
    )
    return gain.mean > 0
