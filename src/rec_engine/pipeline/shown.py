"""What the re-ranker learns of what the service has shown: which of it was clicked, and where it stood."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, IntArray, Interactions, LongArray, RecommendationDataset
from rec_engine.data.impressions import FOREVER, load_impressions
from rec_engine.data.interactions import pairs
from rec_engine.data.item_looks import ItemLooks
from rec_engine.data.showings import ShowingLog
from rec_engine.data.splits import Split
from rec_engine.data.state import UserState, state_before
from rec_engine.data.take_rates import TakeRates
from rec_engine.data.timeline import Timeline
from rec_engine.evaluation.evaluator import NEVER, merge
from rec_engine.models.features import ItemTable, features
from rec_engine.models.lightgbm_ranker import RankerRows
from rec_engine.pipeline.ranking import Lesson, joined
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import get_logger, with_progress

MAX_REQUESTS = 20_000
"""The latest answers that teach: more would take longer than all the rest."""
MIN_CLICKS = 100
"""Fewer clicks than this say nothing of positions."""
ANSWERS = "answers that were shown"

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShownAnswers:
    """What was shown while the validation part came about, in codes: answers in the order of the log.

    Attributes:
        user_codes: (n_answers,) int32.
        timestamps: (n_answers,) int64, Unix seconds.
        starts: (n_answers + 1,) int64; answer a owns rows starts[a] to starts[a + 1] of the others.
        item_codes: (n,) int32, -1 for items that are unknown.
        positions: (n,) int32, from 1.
        clicked: (n,) bool.
        known: what the users did in the training and validation part.
        shown: what they were shown.
    """

    user_codes: IntArray
    timestamps: LongArray
    starts: LongArray
    item_codes: IntArray
    positions: IntArray
    clicked: BoolArray
    known: Interactions
    shown: ShowingLog

    def without(self, is_new: BoolArray) -> "ShownAnswers":
        """Return them as if some items, (n_items,) bool, had never been met or shown before."""
        known = self.known.where(self.known.mask(lambda part: ~is_new[part.item_codes]))
        return replace(self, known=known, shown=self.shown.where(~is_new[self.shown.item_codes]))

    def state(self, answer: int) -> UserState:
        """Return the state of the user who got an answer, when he asked for it."""
        user_code = int(self.user_codes[answer])
        return state_before(self.known, user_code, int(self.timestamps[answer]), self.shown.of_user(user_code))

    def statistics(self, items: ItemTable) -> ItemTable:
        """Return the items with statistics that follow the log up to each answer, as a service's do.

        They tell what had happened as of a moment. Links cannot, and so stay as they are.
        """
        timeline = Timeline(self.known, items.timeline.n_items, until=int(self.timestamps.max()) + 1)
        looks = ItemLooks.of(self.shown)
        return replace(items, timeline=timeline, rates=TakeRates(looks, timeline) if len(looks) else None)


def shown_answers(
    store_url: str, dataset: RecommendationDataset, split: Split, settings: DataSettings
) -> ShownAnswers | None:
    """Return the answers that were given while the validation part came about, with what was clicked until its end.

    Of what is reported nothing is touched: no click counts that came after a user's validation part, and items of his
    test part are left out of what he was shown. None where too little was clicked.

    Args:
        store_url: where the log is.
        dataset: whose ids users and items have.
        split: its validation part is part of the users' histories as far as it lies before an answer.
        settings: which events are clicks.
    """
    found = load_impressions(store_url, settings=settings, windows=windows(split, dataset), latest=MAX_REQUESTS)
    user_codes = dataset.user_ids.codes(found.user_ids.to_list())
    item_codes = dataset.item_ids.codes(found.item_ids.to_list())
    tested = pairs(split.test.user_codes, split.test.item_codes)
    is_kept = ~np.isin(pairs(user_codes[found.request_codes], item_codes), tested)
    if (n_clicks := np.count_nonzero(found.clicked & is_kept)) < MIN_CLICKS:
        logger.info("%d clicks on what was shown during the validation part are too few to learn from", n_clicks)
        return None
    logger.info("%d answers with %d clicks teach the re-ranker", found.n_requests, n_clicks)
    counts = np.bincount(found.request_codes[is_kept], minlength=found.n_requests)
    return ShownAnswers(
        user_codes=user_codes,
        timestamps=found.timestamps,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_codes=item_codes[is_kept],
        positions=found.positions[is_kept],
        clicked=found.clicked[is_kept],
        known=merge(split.train, split.validation),
        shown=split.shown,
    )


def shown_lesson(
    inference: RecommendationInference, answers: ShownAnswers, only: BoolArray | None = None, *, name: str
) -> Lesson | None:
    """Return what answers teach, as far as the items that they showed are candidates; None if they showed none of them.

    Args:
        inference: the request path as of the end of the training part, without a ranker; links, which cannot be asked
            as of a moment, know nothing of the time in which the answers were given.
        answers: statistics of the items are those of their moments.
        only: (n_items,) bool, the items that teach, in the answers that showed any of them; without it all of them do.
        name: for people.
    """
    users, blocks, items = list[int](), list[RankerRows](), answers.statistics(inference.items)
    for answer, user_code in enumerate(with_progress(answers.user_codes.tolist(), name)):
        rows = np.arange(answers.starts[answer], answers.starts[answer + 1])
        if only is not None:
            codes = answers.item_codes[rows]
            rows = rows[(codes >= 0) & only[codes]]
            if not len(rows):
                continue
        users.append(user_code)
        blocks.append(_rows(inference, items, answers, answer, rows))
    return Lesson(name, joined(blocks), np.array(users, dtype=np.int32)) if blocks else None


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
    inference: RecommendationInference, items: ItemTable, answers: ShownAnswers, answer: int, rows: LongArray
) -> RankerRows:
    """Return what the trees see of these rows of an answer, as far as their items are candidates at that moment."""
    state, item_codes = answers.state(answer), answers.item_codes[rows]
    candidates = inference.recommend(Query(state, k=max(1, len(rows)))).candidates
    is_there = np.isin(item_codes, candidates.item_codes)
    places = np.searchsorted(candidates.item_codes, item_codes[is_there])
    matrix = features(state, candidates, items)[places]
    labels = answers.clicked[rows[is_there]].astype(np.float32)
    return RankerRows(matrix, labels, np.array([len(places)]), answers.positions[rows[is_there]])
