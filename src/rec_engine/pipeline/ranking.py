"""Fitting the re-ranker: what serving would have shown before the validation part, and what was then taken."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rec_engine.data.dataset import BoolArray, IntArray, LongArray
from rec_engine.data.splits import Split
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import Task, evaluate, validation_task
from rec_engine.evaluation.exposures import Exposures, exposures_of
from rec_engine.evaluation.statistics import paired_bootstrap
from rec_engine.models.features import features
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.serving.inference import Query, RecommendationInference, as_recommender
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.logger import get_logger, with_progress

MAX_USERS, MIN_USERS = 10_000, 5
MANY_JUDGES = 20
CHOOSING_SHARE, JUDGING_SHARE = 0.2, 0.2
NEGATIVES = 50
SLATE = 10
TOLERATED_LOSS = 0.01
"""Of NDCG@10, for what a lesson teaches that the requests of the validation part do not ask for."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Requests that the trees learn from, and whose they are.

    Attributes:
        name: for people.
        rows: of all of them.
        user_codes: (n_requests,) int32.
    """

    name: str
    rows: RankerRows
    user_codes: IntArray

    def of_users(self, user_codes: IntArray | LongArray) -> RankerRows:
        """Return the requests of these users."""
        return _of_requests(self.rows, np.isin(self.user_codes, user_codes))


def fit_ranker(
    inference: RecommendationInference, split: Split, config: ModelConfig, lessons: Sequence[Lesson] = ()
) -> CTRRanker | None:
    """Return a ranker that orders the candidates better than retrieval does, or None where none does.

    Three blocks in time: towers, links and statistics know the training part, the labels are the validation part, the
    test part stays untouched. Of the users three fifths teach the trees, a fifth chooses objective and number of trees,
    and on the last fifth the ranker has to win; then it learns from all of them. So it is with the lessons, which teach
    by all of their users but those who choose and judge.

    Where the log tells what the users were shown, nothing else counts as not taken, neither to learn nor to judge.

    Args:
        inference: the request path as of the end of the training part, without a ranker.
        split: its validation part holds what was taken.
        config: whose `ctr:` section applies.
        lessons: what the trees learn from besides; those that together cost the requests of `split` more than
            TOLERATED_LOSS are left out, the later ones first.
    """
    task, seed = validation_task(split), config.training.seed
    users = np.random.default_rng(seed).permutation(np.unique(task.targets.user_codes))[:MAX_USERS].astype(np.int32)
    exposures = exposures_of(task)
    try:
        parts = _parts(users, split.train.n_users)
        everybody = Lesson("requests", ranker_rows(inference, task, np.sort(users), exposures), np.sort(users))
        held_out = everybody.of_users(parts.choosing)
        kept, ranker = _tolerated(everybody, lessons, parts.learning, held_out, config)
        if not _wins(inference, ranker, task, parts.judging, exposures):
            return None
        return ranker.refit(_taught(kept, np.arange(split.train.n_users), seed), config.ctr, seed=seed)
    except TrainingError as error:
        logger.warning("no re-ranker: %s", error)
        return None


def fit_to_clicks(
    inference: RecommendationInference,
    split: Split,
    config: ModelConfig,
    lessons: Sequence[Lesson],
    exposures: Exposures,
) -> CTRRanker | None:
    """Return a ranker that learned from answers that were shown and nothing else, None where retrieval does better.

    What nobody was shown nobody could take: where the log tells most of it, whoever takes the rest for unwanted learns
    what the version before has shown. The users' parts are as in `fit_ranker`, which says what the others are.

    Args:
        inference: the request path as of the end of the training part, without a ranker.
        split: its validation part holds what was taken, and its log tells what was shown meanwhile.
        config: whose `ctr:` section applies.
        lessons: answers that were shown then, with positions.
        exposures: what users were shown then, by which the ranker is judged.

    Raises:
        TrainingError: if they teach nothing: too few users, or nothing was clicked, or everything.
    """
    task, seed = validation_task(split), config.training.seed
    users = np.unique(np.concatenate([lesson.user_codes for lesson in lessons]))
    parts = _parts(np.random.default_rng(seed).permutation(users), split.train.n_users)
    taught, held_out = (
        joined([lesson.of_users(part) for lesson in lessons]) for part in (parts.learning, parts.choosing)
    )
    ranker = CTRRanker.fit(taught, held_out, config.ctr, seed=seed)
    if not _wins(inference, ranker, task, parts.judging, exposures):
        return None
    return ranker.refit(joined([lesson.rows for lesson in lessons]), config.ctr, seed=seed)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Codes of the users by what they are there for."""

    learning: LongArray
    choosing: IntArray
    judging: IntArray


def _parts(users: IntArray, n_users: int) -> _Parts:
    """Return who chooses and who judges of users in random order, and all of the n_users else.

    Raises:
        TrainingError: if they are too few.
    """
    n_choosing, n_judging = int(len(users) * CHOOSING_SHARE), int(len(users) * JUDGING_SHARE)
    if min(n_choosing, n_judging) < MIN_USERS:
        raise TrainingError(f"{len(users)} users are too few to choose and judge one", hint="set ctr.model_type: none")
    learning = np.setdiff1d(np.arange(n_users), users[: n_choosing + n_judging])
    return _Parts(learning, users[:n_choosing], users[n_choosing : n_choosing + n_judging])


def _tolerated(
    everybody: Lesson, lessons: Sequence[Lesson], learning: LongArray, held_out: RankerRows, config: ModelConfig
) -> tuple[list[Lesson], CTRRanker]:
    """Return the lessons that do not cost too much, and what they teach these users."""
    kept, seed = [everybody], config.training.seed
    ranker = CTRRanker.fit(_taught(kept, learning, seed), held_out, config.ctr, seed=seed)
    without_lessons = ranker.validation_ndcg
    settings = config.ctr.model_copy(update={"objective": ranker.objective})
    for lesson in lessons:
        tried = CTRRanker.fit(_taught([*kept, lesson], learning, seed), held_out, settings, seed=seed)
        change = tried.validation_ndcg - without_lessons
        is_kept = change >= -TOLERATED_LOSS * without_lessons
        logger.info("with %s NDCG@10 changes by %+.4f: %s", lesson.name, change, "kept" if is_kept else "left out")
        if is_kept:
            kept, ranker = [*kept, lesson], tried
    return kept, ranker


def _taught(lessons: Sequence[Lesson], user_codes: IntArray | LongArray, seed: int) -> RankerRows:
    """Return what the requests of these users teach."""
    return with_few_negatives(joined([lesson.of_users(user_codes) for lesson in lessons]), seed)


def ranker_rows(
    inference: RecommendationInference, task: Task, user_codes: IntArray, exposures: Exposures | None = None
) -> RankerRows:
    """Return one request a user and one row a candidate, made by the code that serves.

    Args:
        inference: the request path as of the task, without a ranker.
        task: who asks when, and what was taken.
        user_codes: (n,) who.
        exposures: what they were shown or took; other candidates are left out. All of them are there without it.

    Raises:
        TrainingError: if no target is among anybody's candidates.
    """
    blocks, labels = [], []
    now = task.request_times()
    for user_code in with_progress(user_codes.tolist(), "ranking features"):
        query = Query(task.state(user_code, int(now[user_code])), k=SLATE)
        candidates = inference.recommend(query).candidates
        kept = np.isin(candidates.item_codes, exposures.items_of(user_code)) if exposures else slice(None)
        blocks.append(np.ascontiguousarray(features(query.state, candidates, inference.items)[kept]))
        taken = np.isin(candidates.item_codes[kept], task.targets.items_of(user_code))
        labels.append(taken.astype(np.float32))
    if not any(taken.any() for taken in labels):
        raise TrainingError("no validation item is among anybody's candidates", hint="set ctr.model_type: none")
    return RankerRows(np.concatenate(blocks), np.concatenate(labels), np.array([len(taken) for taken in labels]))


def joined(blocks: Sequence[RankerRows]) -> RankerRows:
    """Return the requests of all blocks, one block after the other."""
    not_shown = [np.zeros(len(block.labels), dtype=np.int32) for block in blocks]
    positions = [
        zeros if block.positions is None else block.positions for block, zeros in zip(blocks, not_shown, strict=True)
    ]
    return RankerRows(
        np.concatenate([block.features for block in blocks]),
        np.concatenate([block.labels for block in blocks]),
        np.concatenate([block.sizes for block in blocks]),
        np.concatenate(positions),
    )


def with_few_negatives(rows: RankerRows, seed: int) -> RankerRows:
    """Return the requests in which something was taken, with NEGATIVES other candidates for each of it, at random.

    Answers that were shown stay whole, whatever was taken.
    """
    requests = np.repeat(np.arange(len(rows.sizes)), rows.sizes)
    n_taken = np.bincount(requests, rows.labels, len(rows.sizes))
    # The order of random draws within a request, what was taken first: its beginning is a sample.
    draws = np.where(rows.labels > 0, -1.0, np.random.default_rng(seed).random(len(rows.labels)))
    order = np.lexsort((draws, requests))
    starts = np.repeat(np.cumsum(rows.sizes) - rows.sizes, rows.sizes)
    is_early = np.arange(len(order)) - starts < (n_taken * (1 + NEGATIVES))[requests]
    kept = np.zeros(len(order), dtype=np.bool_)
    kept[order[is_early]] = True
    kept &= (n_taken > 0)[requests]
    return _chosen(rows, kept if rows.positions is None else kept | (rows.positions > 0))


def _of_requests(rows: RankerRows, chosen: BoolArray) -> RankerRows:
    return _chosen(rows, np.repeat(chosen, rows.sizes))


def _chosen(rows: RankerRows, kept: BoolArray) -> RankerRows:
    requests = np.repeat(np.arange(len(rows.sizes)), rows.sizes)[kept]
    sizes = np.bincount(requests, minlength=len(rows.sizes))
    positions = None if rows.positions is None else rows.positions[kept]
    return RankerRows(rows.features[kept], rows.labels[kept], sizes[sizes > 0], positions)


def _wins(
    inference: RecommendationInference,
    ranker: CTRRanker,
    task: Task,
    user_codes: Iterable[int],
    exposures: Exposures | None = None,
) -> bool:
    """Return whether the ranker's NDCG@10 on these users is above that of the order it was given.

    Of what was shown it is enough if it is not significantly below, where there are users enough to tell: what that
    order had put first was looked at more, and so was taken more often.
    """
    chosen = task.targets.where(np.isin(task.targets.user_codes, list(user_codes)))
    if not len(chosen):
        raise TrainingError("nobody who judges took anything", hint="set ctr.model_type: none")
    judged = replace(task, name="judging users", targets=chosen)
    reached = []
    for candidate in (None, ranker):
        inference.ranker = candidate
        recommend = as_recommender(inference, judged, exposures)
        found = evaluate("ranker check", recommend, judged, n_items=len(inference.items.vectors), ks=(SLATE,))
        reached.append(found.per_user[f"ndcg@{SLATE}"])
    inference.ranker = None
    gain = paired_bootstrap(reached[1], reached[0]).absolute
    is_kept = gain.high >= 0 if exposures and len(reached[0]) >= MANY_JUDGES else gain.mean > 0
    logger.info(
        "re-ranking (%s) changes NDCG@10 of %d users it did not learn from by %+.4f [%+.4f, %+.4f]%s: %s",
        *(ranker.objective, len(reached[0]), gain.mean, gain.low, gain.high),
        " among what they were shown" if exposures else "",
        "kept" if is_kept else "left out",
    )
    return is_kept
