"""What the re-ranker learns of what the service has shown: which of it was clicked, and where it stood."""

import numpy as np

from rec_engine.data.dataset import BoolArray, IntArray, LongArray, RecommendationDataset
from rec_engine.data.impressions import Impressions
from rec_engine.data.splits import Split
from rec_engine.data.state import UserState, state_before
from rec_engine.evaluation.evaluator import merge
from rec_engine.models.features import features
from rec_engine.models.lightgbm_ranker import RankerRows
from rec_engine.pipeline.ranking import Lesson, joined
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.utils.logger import get_logger, with_progress

MAX_REQUESTS = 20_000
"""The latest answers that teach: more would take longer than all the rest."""
MIN_CLICKS = 100
"""Fewer clicks than this say nothing of positions."""
NEVER, FOREVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max

logger = get_logger(__name__)


def shown_lesson(
    inference: RecommendationInference, impressions: Impressions, dataset: RecommendationDataset, split: Split
) -> Lesson | None:
    """Return the answers that were given between a user's training part and his test part, with what was clicked.

    Links and statistics know nothing of that time, and what is reported is not touched. None where too little was
    clicked then.

    Args:
        inference: the request path as of the end of the training part, without a ranker.
        impressions: what the log holds.
        dataset: whose ids users and items have.
        split: its validation part is part of the users' histories as far as it lies before an answer.
    """
    user_codes = dataset.user_ids.codes(impressions.user_ids.to_list())
    requests = _between_the_parts(impressions.timestamps, user_codes, split)[-MAX_REQUESTS:]
    if not len(requests):
        logger.info("no answer that was shown lies between a training part and a test part: none teaches the re-ranker")
        return None
    known, blocks = merge(split.train, split.validation), list[RankerRows]()
    starts = np.searchsorted(impressions.request_codes, np.arange(impressions.n_requests + 1))
    for request in with_progress(requests.tolist(), "answers that were shown"):
        rows = slice(starts[request], starts[request + 1])
        state = state_before(known, int(user_codes[request]), int(impressions.timestamps[request]))
        item_codes = dataset.item_ids.codes(impressions.item_ids[rows].to_list())
        blocks.append(_rows(inference, state, item_codes, impressions.positions[rows], impressions.clicked[rows]))
    lesson = Lesson("answers that were shown", joined(blocks), user_codes[requests])
    n_clicks = int(lesson.rows.labels.sum())
    logger.info("%d answers with %d clicks teach the re-ranker", len(requests), n_clicks)
    return lesson if n_clicks >= MIN_CLICKS else None


def _between_the_parts(timestamps: LongArray, user_codes: IntArray, split: Split) -> LongArray:
    """Return the rows of the answers to known users, after all that trained and before all that is reported of them."""
    begins, ends = split.train.last_times(NEVER), split.test.first_times(FOREVER)
    is_known = user_codes >= 0
    begins, ends = begins[user_codes], ends[user_codes]
    # An interaction of the same second may be the click itself.
    return np.flatnonzero(is_known & (begins != NEVER) & (timestamps > begins) & (timestamps < ends))


def _rows(
    inference: RecommendationInference, state: UserState, item_codes: IntArray, positions: IntArray, clicked: BoolArray
) -> RankerRows:
    """Return what the trees see of the items of one answer, as far as they are candidates at that moment."""
    candidates = inference.recommend(Query(state, k=len(item_codes))).candidates
    places = np.searchsorted(candidates.item_codes, item_codes)
    is_there = np.isin(item_codes, candidates.item_codes)
    kept = places[is_there]
    matrix = features(state, candidates, inference.items)[kept]
    return RankerRows(matrix, clicked[is_there].astype(np.float32), np.array([len(kept)]), positions[is_there])
