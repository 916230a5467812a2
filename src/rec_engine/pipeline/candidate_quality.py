"""What the candidate sources find, and how well the ranker's probabilities hold, on requests that were held out."""

from collections.abc import Sequence

import numpy as np

from rec_engine.data.dataset import BoolArray, FloatArray
from rec_engine.evaluation.evaluator import Task, reachable_targets
from rec_engine.evaluation.report import Reliability, SourceRecall
from rec_engine.serving.inference import Query, RecommendationInference, Trace
from rec_engine.utils.logger import with_progress

ALL = "all together"
SLATE = 10
N_BINS = 10


def inspect_candidates(path: RecommendationInference, task: Task) -> tuple[list[SourceRecall], Reliability | None]:
    """Return the recall of every source, all of them together last, and the reliability of the ranker if there is one.

    Args:
        path: the request path as of the task.
        task: who asks when, and what was taken.
    """
    targets, _ = reachable_targets(task, len(path.items.vectors))
    now = task.request_times()
    users = np.flatnonzero((np.diff(task.history.starts) > 0) & (np.diff(targets.starts) > 0))
    offered, sizes, predicted, taken = [], [], [], []
    for user_code in with_progress(users.tolist(), "candidates"):
        trace = path.recommend(Query(task.state(user_code, int(now[user_code])), k=SLATE))
        wanted = np.isin(trace.candidates.item_codes, targets.items_of(user_code))
        offered.append(_offered(trace, wanted) / len(targets.items_of(user_code)))
        sizes.append([*np.isfinite(trace.candidates.ranks).sum(axis=1), len(wanted)])
        if trace.ranking_scores is not None:
            predicted.append(trace.scores)
            taken.append(wanted)
    recall = _recalls(path.generator.names, np.array(offered), np.array(sizes)) if offered else []
    return recall, _reliability(np.concatenate(predicted), np.concatenate(taken)) if predicted else None


def _offered(trace: Trace, wanted: BoolArray) -> FloatArray:
    """Return (2, n_sources + 1): how many wanted items each source, or all, offers; and how many it offers alone."""
    by_source = np.isfinite(trace.candidates.ranks[:, wanted])
    alone = by_source & (by_source.sum(axis=0) == 1)
    n_wanted = wanted.sum()
    return np.array([[*by_source.sum(axis=1), n_wanted], [*alone.sum(axis=1), n_wanted]], dtype=np.float32)


def _recalls(names: Sequence[str], offered: FloatArray, sizes: FloatArray) -> list[SourceRecall]:
    """Return a row a source from (n_users, 2, n_sources + 1) shares and (n_users, n_sources + 1) candidates."""
    recall, alone = offered.mean(axis=0)
    return [
        SourceRecall(name, n_offered=float(n), recall=float(found), alone=float(only))
        for name, n, found, only in zip((*names, ALL), sizes.mean(axis=0), recall, alone, strict=True)
    ]


def _reliability(predicted: FloatArray, taken: BoolArray) -> Reliability:
    """Return N_BINS bins with equally many candidates each, fewer where predictions are equal."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="right")
    n = np.bincount(place, minlength=len(edges) + 1)
    kept = n > 0
    means = [np.bincount(place, values, len(n))[kept] / n[kept] for values in (predicted, taken)]
    return Reliability(means[0].tolist(), means[1].tolist(), n[kept].tolist())
