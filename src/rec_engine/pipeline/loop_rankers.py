"""What a closed loop's impressions teach the re-ranker, with correction for position and without."""

from dataclasses import replace

import numpy as np
import polars as pl
from scipy.stats import rankdata

from rec_engine.bundle import ModelBundle
from rec_engine.data.clickstream_sim import ClickstreamSimulator
from rec_engine.data.dataset import FloatArray
from rec_engine.errors import TrainingError
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.pipeline.loop_service import ServedModel, Shop
from rec_engine.pipeline.shown import ANSWERS, shown_answers, shown_lesson
from rec_engine.utils.logger import get_logger

CORRECTED, UNCORRECTED = "corrected for position", "not corrected"
EVERY = 4
"""One user in so many chooses the number of trees."""

logger = get_logger(__name__)


def rankers_with_and_without(shop: Shop, bundle: ModelBundle, now: int) -> dict[str, ModelBundle]:
    """Return a version with two other re-rankers, which learned from the same answers of the log and nothing else.

    Both are fitted to clicks; one of them is told where each item stood. Nothing where too little was clicked.

    Args:
        shop: whose log teaches.
        bundle: that was trained on this log.
        now: Unix seconds, when it was trained.
    """
    split, config = bundle.split, bundle.config
    path = assemble_path(replace(TrainedModel.of(bundle), ranker=None), split.train, split.shown)
    answers = shown_answers(shop.store_url, shop.dataset(now), split, config.data)
    if answers is None:
        return {}
    lesson = shown_lesson(path, answers, name=ANSWERS)
    if lesson is None:
        return {}
    choosing = np.unique(lesson.user_codes)[::EVERY]
    rows = lesson.of_users(np.setdiff1d(np.arange(bundle.history.n_users), choosing))
    held_out = lesson.of_users(choosing)
    try:
        return {
            name: replace(bundle, ranker=_fitted(taught, held_out, bundle))
            for name, taught in ((CORRECTED, rows), (UNCORRECTED, replace(rows, positions=None)))
        }
    except TrainingError as error:
        logger.warning("no re-rankers to compare: %s", error)
        return {}


def order_correlations(
    simulator: ClickstreamSimulator, models: dict[str, ServedModel], user_codes: list[int], moment: int
) -> pl.DataFrame:
    """Return one row a user: for each model the rank correlation of its scores with what attracts him of these items.

    Args:
        simulator: knows the truth.
        models: name to model; they see the same candidates.
        user_codes: of the world's users.
        moment: at which all of them ask, in Unix seconds.
    """
    world = simulator.world
    code_of = {str(item): code for code, item in enumerate(world.items["item_id"].to_list())}
    rows = []
    for user in user_codes:
        row: dict[str, float] = {"user": user}
        attraction = world.attraction_of_all(np.array([user]), np.array([moment]))[0]
        for name, model in models.items():
            items, scores = model.candidates(world.users["user_id"][user], moment)
            codes = [code_of[item] for item in items]
            row[name] = rank_correlation(scores, attraction[codes])
        rows.append(row)
    return pl.DataFrame(rows)


def rank_correlation(one: FloatArray, other: FloatArray) -> float:
    """Return Spearman's rank correlation of two (n,) arrays; nan where one of them is constant."""
    if len(one) == 0 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _fitted(rows: RankerRows, held_out: RankerRows, bundle: ModelBundle) -> CTRRanker:
    settings = bundle.config.ctr.model_copy(update={"objective": "binary"})
    return CTRRanker.fit(rows, held_out, settings, seed=bundle.config.training.seed)
