"""What the re-ranker learns of what the service has shown: which of it was clicked, and where it stood."""

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, IntArray, RecommendationDataset
from rec_engine.data.impressions import FOREVER, load_impressions
from rec_engine.data.splits import Split
from rec_engine.data.state import UserState, state_before
from rec_engine.evaluation.evaluator import NEVER, merge
from rec_engine.models.features import features
from rec_engine.models.lightgbm_ranker import RankerRows
from rec_engine.pipeline.ranking import Lesson, joined
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import get_logger, with_progress

MAX_REQUESTS = 20_000
"""The latest answers that teach: more would take longer than all the rest."""
MIN_CLICKS = 100
"""Fewer clicks than this say nothing of positions."""

logger = get_logger(__name__)


def shown_lesson(
    inference: RecommendationInference,
    store_url: str,
    dataset: RecommendationDataset,
    split: Split,
    settings: DataSettings,
) -> Lesson | None:
    """Return the answers that were given while the validation part came about, with what was clicked until its end.

    Links and statistics know nothing of that time. Of what is reported nothing is touched: no click counts that came
    after a user's validation part, and items of his test part are left out of what he was shown. None where too little
    was clicked.

    Args:
        inference: the request path as of the end of the training part, without a ranker.
        store_url: where the log is.
        dataset: whose ids users and items have.
        split: its validation part is part of the users' histories as far as it lies before an answer.
        settings: which events are clicks.
    """
    shown = load_impressions(store_url, settings=settings, windows=windows(split, dataset), latest=MAX_REQUESTS)
    user_codes = dataset.user_ids.codes(shown.user_ids.to_list())
    item_codes = dataset.item_ids.codes(shown.item_ids.to_list())
    known, blocks = merge(split.train, split.validation), list[RankerRows]()
    starts = np.searchsorted(shown.request_codes, np.arange(shown.n_requests + 1))
    for request, user_code in enumerate(with_progress(user_codes.tolist(), "answers that were shown")):
        rows = np.arange(starts[request], starts[request + 1])
        rows = rows[~np.isin(item_codes[rows], split.test.items_of(user_code))]
        before = split.shown.of_user(user_code)
        state = state_before(known, user_code, int(shown.timestamps[request]), before)
        blocks.append(_rows(inference, state, item_codes[rows], shown.positions[rows], shown.clicked[rows]))
    n_clicks = int(sum(block.labels.sum() for block in blocks))
    if n_clicks < MIN_CLICKS:
        logger.info("%d clicks on what was shown during the validation part are too few to learn from", n_clicks)
        return None
    logger.info("%d answers with %d clicks teach the re-ranker", len(blocks), n_clicks)
    return Lesson("answers that were shown", joined(blocks), user_codes)


def windows(split: Split, dataset: RecommendationDataset) -> pl.DataFrame:
    """Return user_id (String), begins and ends (Int64, Unix seconds): after what trained, up to the last validation.

    Where all of the training part lies before all of the validation part, these two moments are the same for everybody,
    and users who took nothing teach that. Otherwise each user has his own, and one without a validation part has none.
    """
    begins, ends = split.train.last_times(NEVER), split.validation.last_times(NEVER)
    is_known = begins != NEVER
    if begins.max(initial=NEVER) <= split.validation.first_times(FOREVER).min(initial=FOREVER):
        begins[:], ends[:] = begins.max(), ends.max()
    frame = pl.DataFrame({"user_id": dataset.user_ids.ids.cast(pl.String), "begins": begins, "ends": ends})
    return frame.filter(pl.Series(is_known & (ends != NEVER)))


def _rows(
    inference: RecommendationInference, state: UserState, item_codes: IntArray, positions: IntArray, clicked: BoolArray
) -> RankerRows:
    """Return what the trees see of the items of one answer, as far as they are candidates at that moment."""
    candidates = inference.recommend(Query(state, k=max(1, len(item_codes)))).candidates
    places = np.searchsorted(candidates.item_codes, item_codes)
    is_there = np.isin(item_codes, candidates.item_codes)
    kept = places[is_there]
    matrix = features(state, candidates, inference.items)[kept]
    return RankerRows(matrix, clicked[is_there].astype(np.float32), np.array([len(kept)]), positions[is_there])
