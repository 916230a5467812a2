"""How much the place of an item in an answer adds to its chance of a click, whatever the item is.

People look at the top of a list first, so what was shown there was clicked more than it deserved. The log-odds of a
click are taken as f(features) + offset(position): f is what the re-ranker is after, the offsets it must not learn.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rec_engine.data.dataset import FloatArray, IntArray

ROUNDS = 6
NEWTON_STEPS = 20
PRIOR_CLICKS = 1.0
"""Weight of the belief that a position adds nothing: what it takes to move it is clicks."""


def position_offsets(positions: IntArray, labels: FloatArray, fit: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return (max position + 1,) float32, what each position adds to the log-odds of a click; 0 at position 0.

    Trees and offsets take turns: each is fitted on what the other leaves (backfitting). It needs items that were shown
    at different positions, as they are wherever answers differ between users or are drawn. Only differences between
    positions that were shown mean anything: position 0 stands for candidates of other requests, which are drawn as
    training sees fit.

    Args:
        positions: (n,) int32 from 1; 0 for candidates that were not shown, whose label says whether they were taken.
        labels: (n,) float32, 1 for clicked or taken.
        fit: (n,) float32 offsets to (n,) raw scores of a model of the labels beside them, in log-odds; each by a model
            that has not learned from that row.

    References:
        Hastie and Tibshirani, Generalized additive models, 1986: backfitting. Haldar et al., Improving deep learning
        for Airbnb search, 2020: position has to be in the training and out of the serving.
    """
    offsets: NDArray[np.float64] = np.zeros(int(positions.max(initial=0)) + 1)
    for _ in range(ROUNDS):
        scores = fit(offsets[positions].astype(np.float32))
        offsets = _best_offsets(scores, positions, labels, offsets)
    return offsets.astype(np.float32)


def _best_offsets(
    scores: FloatArray, positions: IntArray, labels: FloatArray, offsets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the offsets that make the labels most likely beside these scores, by Newton's method."""
    n = len(offsets)
    for _ in range(NEWTON_STEPS):
        chance = expit(scores + offsets[positions])
        slope = np.bincount(positions, labels - chance, n) - PRIOR_CLICKS * offsets
        curvature = np.bincount(positions, chance * (1 - chance), n) + PRIOR_CLICKS
        step = np.clip(slope / curvature, -1, 1)
        step[0] = 0
        offsets = offsets + step
    return offsets
