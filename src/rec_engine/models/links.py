"""The item-to-item links that recall and re-ranking use, learned by counting or in closed form."""

from typing import Any

import numpy as np
from scipy import sparse

from rec_engine.data.dataset import Interactions
from rec_engine.models.baselines import EASE, MAX_EASE_ITEMS, Covisitation, ItemKNN, followers
from rec_engine.retrieval.links import COVISITATION, NEXT, SIMILAR, TOGETHER, Links
from rec_engine.utils.logger import get_logger

LINKS_AN_ITEM = 400
TOGETHER_WINDOW = 20
FEW_FOLLOWERS = 20
"""Followers that have to be seen before half of an item's say counts."""

logger = get_logger(__name__)


def fit_links(known: Interactions, n_items: int, ease_regularisation: float) -> dict[str, Links]:
    """Return the LINKS_AN_ITEM strongest links of each item, four kinds of them by name.

    "co-visitation": what comes soon after it; "next": the probability of what comes right after it; "together": what is
    met around it, before or after; "similar": who likes the one likes the other (EASE, or ItemKNN for many items).

    Args:
        known: what the links may know.
        n_items: size of the catalogue.
        ease_regularisation: of the similar items; what is best differs by a factor of ten between data sets.
    """
    follows = Covisitation()
    follows.fit(known, n_items)
    strengths = {COVISITATION: follows.followers, NEXT: _next(known, n_items), TOGETHER: _together(known, n_items)}
    if n_items <= MAX_EASE_ITEMS:
        linear = EASE(ease_regularisation)
        linear.fit(known, n_items)
        strengths[SIMILAR] = sparse.csr_array(sparse.coo_array(linear.weights))
    else:
        logger.info("%d items are too many for EASE: similar items come from ItemKNN", n_items)
        nearest = ItemKNN()
        nearest.fit(known, n_items)
        strengths[SIMILAR] = nearest.similarity
    return {name: Links.strongest(matrix, LINKS_AN_ITEM) for name, matrix in strengths.items()}


def _next(known: Interactions, n_items: int) -> "sparse.csr_array[Any, Any]":
    counts = followers(known, n_items, np.ones(1, dtype=np.float32))
    totals = np.asarray(counts.sum(axis=1)).ravel() + FEW_FOLLOWERS
    counts.data /= np.repeat(totals, np.diff(counts.indptr)).astype(np.float32)
    return counts


def _together(known: Interactions, n_items: int) -> "sparse.csr_array[Any, Any]":
    decay = (1 / np.sqrt(np.arange(1, TOGETHER_WINDOW + 1))).astype(np.float32)
    after = followers(known, n_items, decay)
    counts = sparse.csr_array(after + after.T)
    popularity = np.maximum(known.positive().item_counts(n_items), 1)
    counts.data /= np.sqrt(popularity[counts.indices]).astype(np.float32)
    return counts
