"""What other versions would have earned, from the log of the one that served: before a user meets them."""

from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import IdMap, IntArray
from rec_engine.data.events import EventStore
from rec_engine.data.impressions import Impressions, load_impressions
from rec_engine.data.live import LiveHistories
from rec_engine.data.live_showings import LiveShowings
from rec_engine.data.state import UserState
from rec_engine.errors import DataError, NotFoundError
from rec_engine.evaluation.off_policy import DoubleArray, LoggedSlates, PolicyValue, policy_value
from rec_engine.models.lightgbm_ranker import probability
from rec_engine.serving.arrange import draw_weights, pool_size
from rec_engine.serving.asked import request_of
from rec_engine.serving.inference import Query, RecommendationInference, Trace
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger, with_progress

MAX_ANSWERS = 50_000
"""The latest that are judged: more would take longer and say little more."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """A version, and what the log says of it.

    Attributes:
        name: of the version.
        n_answers: how many of the log it was judged by.
        n_left_out: how many it could not be asked again, such as for an attribute that its items do not have.
        value: clicks an answer.
    """

    name: str
    n_answers: int
    n_left_out: int
    value: PolicyValue


def judge_from_log(
    bundles: Mapping[str, ModelBundle],
    store_url: str,
    *,
    exploration: float,
    n_positions: int,
    request_ids: Collection[str] | None = None,
) -> list[Judged]:
    """Return what each version would have earned if it had answered, drawing its lists as `exploration` says.

    Only answers count that were drawn, that are first pages, and that came after all that any of the versions was
    trained with: by what it has learned from, none may be judged. What was asked (filters, excluded and recent items)
    is asked again. What the shop wanted (rules, caps) is not in the log: judge answers that followed none.

    Args:
        bundles: name to version.
        store_url: of the log.
        exploration: temperature of the draw, in log-odds, as in `recommendations.exploration`; above 0.
        n_positions: how many positions from the top are judged.
        request_ids: only by these answers; by all without it.

    Raises:
        DataError: if the log has no answer to judge by.
        StoreError: if it cannot be read.
    """
    since = 1 + max(int(bundle.history.timestamps.max(initial=0)) for bundle in bundles.values())
    shown = load_impressions(store_url, latest=MAX_ANSWERS, since=since)
    answers = _drawn_first_pages(shown)
    if request_ids is not None:
        answers = answers[shown.request_ids.gather(answers).is_in(list(request_ids)).to_numpy()]
    if not len(answers):
        raise DataError(
            f"none of {shown.n_requests:,} answers since Unix second {since} was drawn",
            hint="serve with recommendations.exploration above 0, and judge versions that were trained before that",
        )
    logger.info("%d of %d answers since Unix second %d were drawn", len(answers), shown.n_requests, since)
    users = IdMap.of(shown.user_ids)
    user_codes = users.codes(shown.user_ids.gather(answers).to_list())
    judged = []
    with closing(EventStore(store_url)) as store:
        for name, bundle in bundles.items():
            slates = _slates(_Policy(bundle, store, exploration), shown, answers, user_codes, n_positions)
            n_judged = len(slates.user_codes)
            if not n_judged:
                raise DataError(
                    f"{name} can answer none of the {len(answers):,} requests of the log",
                    hint="its items lack the attributes or categories that the requests name",
                )
            judged.append(Judged(name, n_judged, len(answers) - n_judged, policy_value(slates)))
    return judged


def _drawn_first_pages(shown: Impressions) -> IntArray:
    """Return the answers that begin at the first position and in which something was left to chance."""
    n = shown.n_requests
    is_first = np.bincount(shown.request_codes[shown.positions == 1], minlength=n) > 0
    is_drawn = np.bincount(shown.request_codes[shown.propensities < 1], minlength=n) > 0
    return np.flatnonzero(is_first & is_drawn).astype(np.int32)


class _Policy:
    """A version that draws its answers: what it would have shown at a moment of the past.

    Args:
        bundle: the version; of items it knows what it was trained with, of users what was logged since as well.
        store: the log.
        exploration: temperature of the draw.
    """

    def __init__(self, bundle: ModelBundle, store: EventStore, exploration: float) -> None:
        self._inference = RecommendationInference.of(bundle, RecommendationSettings())
        self._item_ids = bundle.item_ids
        self._exploration = exploration
        self._histories = LiveHistories(
            bundle.history,
            bundle.user_ids,
            bundle.item_ids.code,
            settings=bundle.config.data,
            store=store,
            since=bundle.manifest.log_position,
        )
        self._showings = LiveShowings(bundle.item_ids.code, store)

    def trace(self, user_id: str, moment: int, k: int, asked: str | None) -> Trace:
        """Return the candidates and their scores for a user who asks for k items at a moment, in Unix seconds.

        Raises:
            DataError: if this version cannot be asked what was asked.
            NotFoundError: if its items have no such attribute or category.
        """
        user, request = self._histories.user(user_id), request_of(user_id, asked)
        n = int(np.searchsorted(user.timestamps, moment))
        past = user.item_codes[:n], user.weights[:n], user.timestamps[:n]
        state = UserState(user.user_code, *past, moment, self._showings.of_user(user_id, moment))
        codes = self._inference.catalogue.codes
        query = Query(
            state.then(codes(request.context.recent_items)),
            k,
            categories=request.filter_categories,
            filter=request.filter,
            exclude=codes(request.exclude_items),
            use_reranking=request.use_reranking,
        )
        return self._inference.recommend(query)

    def chances(self, trace: Trace, item_ids: list[str], is_settled: list[bool]) -> DoubleArray:
        """Return (3, n) for items shown one below the other: probability, guess of a click, and the mean guess there.

        Args:
            trace: of the request.
            item_ids: that were shown, from the top.
            is_settled: which of them were certain, such as those that a rule pinned; they would be so again.
        """
        pool = np.argsort(-trace.ordered_by, kind="stable")[: pool_size(len(item_ids))]
        codes, weights = trace.candidates.item_codes[pool], draw_weights(trace.ordered_by[pool], self._exploration)
        ranked = trace.ranking_scores
        guesses = np.zeros(len(pool)) if ranked is None else probability(ranked[pool]).astype(np.float64)
        found = np.zeros((3, len(item_ids)))
        for place, (item_id, settled) in enumerate(zip(item_ids, is_settled, strict=True)):
            is_it, total = codes == self._item_ids.code(item_id), weights.sum()
            chance = 1.0 if settled else weights[is_it].sum() / total if total else 0.0
            guess = guesses[is_it].sum()
            found[:, place] = chance, guess, guess if settled or not total else (weights * guesses).sum() / total
            weights[is_it] = 0
        return found


def _slates(
    policy: _Policy, shown: Impressions, answers: IntArray, user_codes: IntArray, n_positions: int
) -> LoggedSlates:
    """Return the answers beside what the policy would have made of them, without those that it could not answer."""
    shape = len(answers), n_positions
    logged, rewards, chances = np.ones(shape), np.zeros(shape), np.zeros((3, *shape))
    is_shown, is_answered = np.zeros(shape, dtype=np.bool_), np.ones(len(answers), dtype=np.bool_)
    starts = np.searchsorted(shown.request_codes, np.arange(shown.n_requests + 1))
    for row, answer in enumerate(with_progress(answers.tolist(), "answers of the log")):
        rows = slice(starts[answer], min(starts[answer + 1], starts[answer] + n_positions))
        n = rows.stop - rows.start
        k, moment = int(starts[answer + 1] - rows.start), int(shown.timestamps[answer])
        try:
            trace = policy.trace(shown.user_ids[answer], moment, k, shown.asked[answer])
        except (DataError, NotFoundError):
            is_answered[row] = False
            continue
        is_shown[row, :n], logged[row, :n] = True, shown.propensities[rows]
        rewards[row, :n] = shown.clicked[rows]
        chances[:, row, :n] = policy.chances(trace, shown.item_ids[rows].to_list(), (logged[row, :n] == 1).tolist())
    (target, guess, of_target), rewards = chances[:, is_answered], rewards[is_answered]
    return LoggedSlates(
        user_codes[is_answered],
        is_shown[is_answered],
        logged[is_answered],
        target,
        rewards,
        *_to_scale(guess, of_target, rewards),
    )


def _to_scale(guess: DoubleArray, of_target: DoubleArray, rewards: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Return both guesses as high as the clicks of their position are: people look at the top first."""
    sums = guess.sum(axis=0)
    scale = np.divide(rewards.sum(axis=0), sums, out=np.zeros(len(sums)), where=sums > 0)
    return guess * scale, of_target * scale
