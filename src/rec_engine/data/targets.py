"""Held-out interactions from a file of their own, in the codes of a dataset or model that already exists."""

from pathlib import Path

import numpy as np

from rec_engine.data.dataset import IdMap, Interactions, RecommendationDataset
from rec_engine.data.tables import read_table
from rec_engine.data.validation import Tables, clean_interactions, clean_items, clean_users
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import get_logger

logger = get_logger(__name__)


def load_targets(path: Path, user_ids: IdMap, item_ids: IdMap, settings: DataSettings) -> Interactions:
    """Return the positive interactions of a file with the users and items of these maps; others are counted in the log.

    Raises:
        DataError: if the file cannot be used, or none of its interactions is of a known user and item.
    """
    rows = clean_interactions(read_table(path), settings).accepted(str(path))
    tables = Tables(rows, clean_users(None).frame, clean_items(None).frame)
    held_out = RecommendationDataset.from_clean(tables, settings)
    past = held_out.interactions.positive()
    users = user_ids.codes(held_out.user_ids.ids.to_list())[past.user_codes]
    items = item_ids.codes(held_out.item_ids.ids.to_list())[past.item_codes]
    known = (users >= 0) & (items >= 0)
    if not known.any():
        raise DataError(
            f"{path}: not one of its {len(past):,} interactions is of a user and an item of the training data",
            hint="held-out data uses the ids of the training data",
        )
    if not known.all():
        logger.warning(
            "%s: %s of %s interactions are of unknown users or items and are left out",
            path,
            f"{(~known).sum():,}",
            f"{len(past):,}",
        )
    order = np.lexsort((past.timestamps[known], users[known]))
    counts = np.bincount(users[known], minlength=len(user_ids))
    return Interactions(
        item_codes=items[known][order],
        timestamps=past.timestamps[known][order],
        events=past.events[known][order],
        values=past.values[known][order],
        weights=past.weights[known][order],
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
