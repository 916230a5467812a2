"""What a dataset is like."""

import numpy as np
import polars as pl

from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.profile import profile


def test_a_small_dataset_is_described_to_the_last_figure() -> None:
    rows = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2],
            "item_id": ["a", "b", "a", "a"],
            "timestamp": [0, 86_400, 2 * 86_400, 31_556_952],
            "event": ["click", "purchase", "click", "click"],
        }
    )
    items = pl.DataFrame(
        {"item_id": ["a", "b", "c"], "title": ["A", None, None], "categories": [["x", "y"], ["x"], None]}
    )
    found = profile(RecommendationDataset(rows, None, items))
    assert (found.n_users, found.n_items, found.n_interactions) == (2, 3, 4)
    assert found.by_event == {"click": 3, "purchase": 1}
    assert (found.first_day, found.last_day) == ("1970-01-01", "1971-01-01")
    assert found.density == 3 / 6
    assert found.head_share == 3 / 4
    assert (found.items_unmet, found.items_with_text, found.n_categories) == (1, 1, 2)
    assert found.history_lengths.tolist() == [3, 1]
    assert found.item_counts.tolist() == [3, 1, 0]
    assert np.allclose([found.years.min(), found.years.max()], [1970, 1971])
