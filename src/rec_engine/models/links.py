"""The item-to-item links that recall and re-ranking use, learned by counting or in closed form."""

from scipy import sparse

from rec_engine.data.dataset import Interactions
from rec_engine.models.baselines import EASE, Covisitation, ItemKNN
from rec_engine.retrieval.links import Links
from rec_engine.utils.logger import get_logger

COVISITATION, SIMILAR = "co-visitation", "similar"
MAX_EASE_ITEMS = 12_500
"""EASE needs 24 bytes a pair of items while it is fitted: 3.8 GB for so many."""
LINKS_AN_ITEM = {COVISITATION: 400, SIMILAR: 400}

logger = get_logger(__name__)


def fit_links(known: Interactions, n_items: int) -> dict[str, Links]:
    """Return what follows what ("co-visitation"), and what goes with what ("similar"): EASE, or ItemKNN for many items.

    Args:
        known: what the links may know.
        n_items: size of the catalogue.
    """
    follows = Covisitation()
    follows.fit(known, n_items)
    strengths = {COVISITATION: follows.followers}
    if n_items <= MAX_EASE_ITEMS:
        linear = EASE()
        linear.fit(known, n_items)
        strengths[SIMILAR] = sparse.csr_array(sparse.coo_array(linear.weights))
    else:
        logger.info("%d items are too many for EASE: similar items come from ItemKNN", n_items)
        nearest = ItemKNN()
        nearest.fit(known, n_items)
        strengths[SIMILAR] = nearest.similarity
    return {name: Links.strongest(matrix, LINKS_AN_ITEM[name]) for name, matrix in strengths.items()}
