"""Full-catalogue evaluation of anything that recommends: no sampled negatives, seen items removed, ties at random."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.data.interactions import offsets, stacked
from rec_engine.data.kernels import distinct_users
from rec_engine.data.scratch import empty_beside
from rec_engine.data.showings import NO_SHOWINGS, ShowingLog
from rec_engine.data.splits import Split
from rec_engine.data.state import UserState, state_of
from rec_engine.errors import DataError
from rec_engine.evaluation.metrics import (
    METRICS,
    DoubleArray,
    catalogue_coverage,
    exposure_counts,
    gini,
    hits_matrix,
    mean_novelty,
)
from rec_engine.evaluation.ranking import top_k
from rec_engine.evaluation.statistics import Estimate, bootstrap_mean, paired_bootstrap
from rec_engine.utils.logger import with_progress

Scorer = Callable[[IntArray], FloatArray]
"""User codes (b,) to scores of the whole catalogue, (b, n_items) float32."""

Recommender = Callable[[IntArray, int], IntArray]
"""User codes (b,) and k to item codes (b, k), best first, -1 where there is no item."""

USERS_A_BATCH = 256
NEVER = np.iinfo(np.int64).min
WORST = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class Task:
    """What is known of the users, and what they did next.

    Attributes:
        name: for reports.
        history: known.
        targets: to be found.
        repeats: whether items of the history may be recommended, and count where they are targets.
        knows_request_time: whether a model may read the clock, as a service can; else the request comes at the moment
            of the user's last interaction, which is the protocol of models that ignore time.
        shown: what the users were shown; what came after a request does not count for it.
    """

    name: str
    history: Interactions
    targets: Interactions
    repeats: bool = False
    knows_request_time: bool = True
    shown: ShowingLog = NO_SHOWINGS

    def state(self, user_code: int, now: int) -> UserState:
        """Return a user who asks at `now`, in Unix seconds: after all that is known of him."""
        return state_of(self.history, user_code, now, self.shown.of_user(user_code))

    @property
    def seen(self) -> Interactions:
        """What must not be recommended to these users: their history, or nothing where items may come again."""
        return self.history.where(np.zeros(len(self.history), dtype=np.bool_)) if self.repeats else self.history

    def request_times(self) -> LongArray:
        """Return (n_users,) int64, Unix seconds: when each user asks, which is when he met his first target.

        Nobody asks before the end of what is known of him, as he would seem to where a random part is held out.
        """
        times = self.history.last_times(NEVER)
        if self.knows_request_time:
            times = np.maximum(times, self.targets.first_times(NEVER))
        return np.where(times == NEVER, self.history.timestamps.max(initial=0), times)


def validation_task(split: Split) -> Task:
    """Return the task on which settings are chosen."""
    return Task(f"{split.name}, validation", split.train, split.validation, split.repeats, shown=split.shown)


def test_task(split: Split) -> Task:
    """Return the task that is reported: everything before the test part is known."""
    known = merge(split.train, split.validation)
    return Task(f"{split.name}, test", known, split.test, split.repeats, shown=split.shown)


test_task.__test__ = False  # type: ignore[attr-defined]  # its name makes pytest take it for a test


def some_users(task: Task, n_users: int, *, seed: int) -> Task:
    """Return the task with the targets of at most `n_users` users, drawn at random."""
    users = np.unique(task.targets.user_codes)
    if len(users) <= n_users:
        return task
    chosen = np.random.default_rng(seed).choice(users, n_users, replace=False)
    return replace(task, targets=task.targets.where(np.isin(task.targets.user_codes, chosen)))


def share_of_users(task: Task, rank: int, n_ranks: int) -> Task:
    """Return the task with the targets of every n-th user who has any, for one of several processes to measure."""
    if n_ranks == 1:
        return task
    own = np.unique(task.targets.user_codes)[rank::n_ranks]
    return replace(task, targets=task.targets.where(np.isin(task.targets.user_codes, own)))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one model reached on one task.

    Attributes:
        name: of the model.
        user_codes: (n_users,) int32, the users that were measured.
        ranked: (n_users, max k) int32, their lists: item codes, best first, -1 for no item.
        per_user: metric ("ndcg@10") to (n_users,) float64.
        catalogue: metric ("coverage@10", "gini@10", "novelty@10") to its value over all lists.
        n_cold_users: users with targets but without a history; they are left out.
        n_unreachable_targets: targets that the user already had; they are left out.
        seconds: to recommend to all users.
    """

    name: str
    user_codes: IntArray
    ranked: IntArray
    per_user: dict[str, DoubleArray]
    catalogue: dict[str, float]
    n_cold_users: int
    n_unreachable_targets: int
    seconds: float
    fit_seconds: float = field(default=0.0)

    def estimate(self, metric: str) -> Estimate:
        """Return the mean over users and its 95% bootstrap interval."""
        return bootstrap_mean(self.per_user[metric])

    def mean(self, metric: str) -> float:
        """Return the mean over users, nan when there are none."""
        values = self.per_user[metric]
        return float(values.mean()) if len(values) else float("nan")


def evaluate(  # noqa: PLR0913 - each of them is part of the protocol
    name: str,
    recommend: Recommender,
    task: Task,
    *,
    n_items: int,
    ks: Sequence[int] = (5, 10, 20),
    fit_seconds: float = 0.0,
) -> Evaluation:
    """Return how well `recommend` finds the targets among all items.

    Args:
        name: of the model.
        recommend: what is judged; it must leave out by itself what the task does not let it recommend.
        task: history and targets.
        n_items: size of the catalogue.
        ks: list lengths.
        fit_seconds: for the report.
    """
    targets, n_unreachable = reachable_targets(task, n_items)
    has_history = np.diff(task.history.starts) > 0
    has_targets = np.diff(targets.starts) > 0
    users = np.flatnonzero(has_history & has_targets).astype(np.int32)
    started = time.monotonic()
    batches = [users[first : first + USERS_A_BATCH] for first in range(0, len(users), USERS_A_BATCH)]
    lists = [recommend(batch, max(ks)) for batch in with_progress(batches, name)]
    seconds = time.monotonic() - started
    ranked = np.concatenate(lists) if lists else np.empty((0, max(ks)), dtype=np.int32)
    users_by_item = distinct_users(task.history.item_codes, task.history.starts, n_items)
    return Evaluation(
        name=name,
        user_codes=users,
        ranked=ranked,
        per_user=accuracy(ranked, users, targets, n_items=n_items, ks=ks),
        catalogue={
            key: value
            for k in ks
            for key, value in (
                (f"coverage@{k}", catalogue_coverage(ranked[:, :k], n_items)),
                (f"gini@{k}", gini(exposure_counts(ranked[:, :k], n_items))),
                (f"novelty@{k}", mean_novelty(ranked[:, :k], users_by_item, int(has_history.sum()))),
            )
        },
        n_cold_users=int((~has_history & has_targets).sum()),
        n_unreachable_targets=n_unreachable,
        seconds=seconds,
        fit_seconds=fit_seconds,
    )


def accuracy(
    ranked: IntArray, user_codes: IntArray, targets: Interactions, *, n_items: int, ks: Sequence[int]
) -> dict[str, DoubleArray]:
    """Return metric ("ndcg@10") to (n_users,) float64, nan for a user without a target.

    Args:
        ranked: (n_users, max k) item codes, best first, -1 for no item.
        user_codes: (n_users,) int32, ascending: whose lists they are.
        targets: what was to be found, of all users.
        n_items: size of the catalogue.
        ks: list lengths.
    """
    chosen = targets.where(np.isin(targets.user_codes, user_codes))
    starts = np.concatenate([[0], np.cumsum(np.diff(targets.starts)[user_codes])])
    hits, n_relevant = hits_matrix(ranked, chosen.item_codes, starts, n_items), np.diff(starts)
    return {f"{metric}@{k}": METRICS[metric](hits, n_relevant, k) for metric in METRICS for k in ks}


def rank_by_score(score: Scorer, seen: Interactions, *, seed: int = 0) -> Recommender:
    """Return a recommender that ranks the whole catalogue by score, items of `seen` left out, nan last.

    Equal scores are ordered by one random permutation of the items, the same for all users: a model that gives every
    item the same score must not profit from the order of the catalogue. A user may occur twice in a batch; the code -1
    (unknown) has seen nothing.
    """

    def recommend(user_codes: IntArray, k: int) -> IntArray:
        # Only what is left out may be at minus infinity: it must come after every item that can be shown.
        scores = np.nan_to_num(score(user_codes).astype(np.float32), copy=False, nan=WORST, posinf=np.inf, neginf=WORST)
        n_items = scores.shape[1]
        unseen = np.ones_like(scores, dtype=np.bool_)
        met = seen.of_users(user_codes)
        unseen[met.user_codes, met.item_codes] = False
        scores[~unseen] = -np.inf
        shuffled = np.random.default_rng(seed).permutation(n_items)
        order = top_k(scores[:, shuffled], min(k, n_items))
        ranked = shuffled[order].astype(np.int32)
        ranked[~np.take_along_axis(unseen, ranked, axis=1)] = -1
        padding = np.full((len(ranked), k - ranked.shape[1]), -1, dtype=np.int32)
        return np.concatenate([ranked, padding], axis=1)

    return recommend


def merge(first: Interactions, second: Interactions) -> Interactions:
    """Return both in time order for each user; at equal times rows of `first` come first.

    Raises:
        DataError: if the two are not over the same users.
    """
    if first.n_users != second.n_users:
        raise DataError(
            f"interactions of {first.n_users} and of {second.n_users} users cannot be merged",
            hint="take both from the same dataset",
        )
    pairs = ((first.of_range(users), second.of_range(users)) for users in first.user_blocks())
    n_rows = len(first) + len(second)
    return stacked((_merged(*pair) for pair in pairs), n_rows, partial(empty_beside, first.item_codes))


def _merged(first: Interactions, second: Interactions) -> Interactions:
    users = np.concatenate([first.user_codes, second.user_codes])
    timestamps = np.concatenate([first.timestamps, second.timestamps])
    order = np.lexsort((timestamps, users))
    counts = np.diff(first.starts) + np.diff(second.starts)

    def joined(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(first, name), getattr(second, name)])[order]

    columns = {name: joined(name) for name in ("item_codes", "timestamps", "events", "values", "weights")}
    return Interactions(**columns, starts=offsets(counts))  # type: ignore[arg-type]


def reachable_targets(task: Task, n_items: int) -> tuple[Interactions, int]:
    """Return the distinct targets that are not in the user's history, and how many others there were.

    Where items may come again all distinct targets can be reached.
    """
    keys = task.targets.user_codes.astype(np.int64) * n_items + task.targets.item_codes
    users = np.unique(task.targets.user_codes)
    seen = task.seen.of_users(users)
    known = users[seen.user_codes].astype(np.int64) * n_items + seen.item_codes
    is_first = np.zeros(len(keys), dtype=np.bool_)
    is_first[np.unique(keys, return_index=True)[1]] = True
    is_new = ~np.isin(keys, known)
    return task.targets.where(is_first & is_new), int((is_first & ~is_new).sum())


def comparison_table(evaluations: Sequence[Evaluation], metrics: Sequence[str], title: str) -> Table:
    """Return a table for people: a row a model, means with half the 95% interval.

    The last column is the last model's relative gain over each other in the first metric, with its paired interval.

    Raises:
        DataError: if two models were measured on different users.
    """
    judged = evaluations[-1]
    caption = f"gain: relative, in {metrics[0]}, of {judged.name} over the row's model, with its 95% interval"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    for column in ("model", *metrics, "gain of the last"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for evaluation in evaluations:
        gain = "" if evaluation is judged else _relative(judged, evaluation, metrics[0])
        table.add_row(evaluation.name, *(_cell(evaluation, metric) for metric in metrics), gain)
    return table


def as_json(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float | None]]:
    """Return model name to metric to mean, for machines: "metric.low" and "metric.high" are the 95% interval.

    What could not be measured is None.
    """
    report: dict[str, dict[str, float | None]] = {}
    for evaluation in evaluations:
        row = {"n_users": float(len(evaluation.user_codes)), **evaluation.catalogue}
        for metric in evaluation.per_user:
            estimate = evaluation.estimate(metric)
            row |= {metric: estimate.mean, f"{metric}.low": estimate.low, f"{metric}.high": estimate.high}
        report[evaluation.name] = {metric: value if np.isfinite(value) else None for metric, value in row.items()}
    return report


def _cell(evaluation: Evaluation, metric: str) -> str:
    if metric in evaluation.catalogue:
        return f"{evaluation.catalogue[metric]:.3f}"
    estimate = evaluation.estimate(metric)
    return f"{estimate.mean:.4f} ±{estimate.half_width:.3f}"


def _relative(judged: Evaluation, other: Evaluation, metric: str) -> str:
    if not np.array_equal(judged.user_codes, other.user_codes):
        raise DataError(
            f"{judged.name} and {other.name} were measured on different users",
            hint="evaluate all models on the same task",
        )
    gain = paired_bootstrap(judged.per_user[metric], other.per_user[metric]).relative
    return f"{gain.mean:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}]"
