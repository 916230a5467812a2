"""Held-out files in the codes of a model that exists."""

from pathlib import Path

import pytest

from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.targets import load_targets
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["user_id,item_id,timestamp,event", *rows]) + "\n")
    return path


def test_known_rows_get_the_codes_of_the_maps(tmp_path: Path, dataset: RecommendationDataset) -> None:
    path = write(tmp_path / "t.csv", "3,107,20,click", "3,105,10,click", "0,100,5,purchase")
    targets = load_targets(path, dataset.user_ids, dataset.item_ids, DataSettings())
    assert targets.n_users == dataset.n_users
    assert targets.items_of(3).tolist() == [5, 7]
    assert targets.items_of(0).tolist() == [0]


def test_unknown_users_items_and_dislikes_are_left_out(tmp_path: Path, dataset: RecommendationDataset) -> None:
    path = write(tmp_path / "t.csv", "3,107,20,click", "999,105,10,click", "3,999,5,click", "3,101,5,dislike")
    assert len(load_targets(path, dataset.user_ids, dataset.item_ids, DataSettings())) == 1


def test_a_file_of_strangers_is_an_error(tmp_path: Path, dataset: RecommendationDataset) -> None:
    path = write(tmp_path / "t.csv", "abc,def,20,click")
    with pytest.raises(DataError, match="not one of its 1 interactions"):
        load_targets(path, dataset.user_ids, dataset.item_ids, DataSettings())
