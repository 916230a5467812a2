"""The k highest scores of each row, without sorting the rest."""

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray


def top_k(scores: FloatArray, k: int) -> NDArray[np.int64]:
    """Return (n, k) columns of the highest of (n, n_columns) scores, best first, equal ones in column order.

    The same as a stable descending sort cut after k columns; `k` is at most n_columns and no score is nan.
    """
    n_columns = scores.shape[1]
    if k < n_columns:
        cut = np.partition(scores, n_columns - k, axis=1)[:, n_columns - k, None]
        n_above = (scores > cut).sum(axis=1, keepdims=True)
        at_cut = scores == cut
        # Everything above the cut is in; of what lies at it, the leftmost fill up the k places.
        kept = (scores > cut) | (at_cut & (at_cut.cumsum(axis=1) <= k - n_above))
        chosen = np.nonzero(kept)[1].reshape(len(scores), k)
    else:
        chosen = np.broadcast_to(np.arange(n_columns), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)
