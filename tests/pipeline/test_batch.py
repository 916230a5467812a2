"""Recommendations into a file."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rec_engine.bundle import ModelBundle
from rec_engine.errors import DataError
from rec_engine.pipeline.batch import recommend_to_file
from rec_engine.utils.config import RecommendationSettings

READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": lambda path: pl.read_parquet(path),
    ".csv": lambda path: pl.read_csv(path),
    ".jsonl": lambda path: pl.read_ndjson(path),
}


@pytest.mark.parametrize("ending", list(READERS))
def test_all_users_get_k_ranked_unseen_items(bundle: ModelBundle, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"recs{ending}"
    recommend_to_file(bundle, "all", 5, output, RecommendationSettings())
    table = READERS[ending](output)
    assert table.columns == ["user_id", "item_id", "rank", "score"]
    assert table["user_id"].n_unique() == len(bundle.user_ids)
    assert table.group_by("user_id").agg(pl.col("rank").sort())["rank"].to_list() == [[1, 2, 3, 4, 5]] * 60
    seen = {(bundle.user_ids[u], bundle.item_ids[i]) for u in range(60) for i in bundle.history.items_of(u)}
    assert not seen & set(table.select("user_id", "item_id").iter_rows())


def test_users_of_a_file_come_in_its_order_unknown_ones_included(bundle: ModelBundle, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\n7\nnobody\n3\n")
    table = recommend_to_file(bundle, str(tmp_path / "users.csv"), 2, tmp_path / "r.csv", RecommendationSettings())
    assert table["user_id"].to_list() == ["7", "7", "nobody", "nobody", "3", "3"]


@pytest.mark.parametrize("output", ["recs.xlsx", "recs"])
def test_unknown_ending_is_refused_before_any_work(bundle: ModelBundle, tmp_path: Path, output: str) -> None:
    with pytest.raises(DataError, match="cannot write"):
        recommend_to_file(bundle, "all", 5, tmp_path / output, RecommendationSettings())
    assert not list(tmp_path.iterdir())


def test_file_without_user_id_is_refused(bundle: ModelBundle, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match="no column user_id"):
        recommend_to_file(bundle, str(tmp_path / "users.csv"), 2, tmp_path / "r.csv", RecommendationSettings())
