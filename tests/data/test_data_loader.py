import csv
import logging
from pathlib import Path

import polars as pl
import pytest

from rec_engine.data.data_loader import DATASETS, RecommendationDataset, load_custom, load_dataset
from rec_engine.data.movielens import FOLDERS
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

GOOD = "".join(f"u{place},00{place % 7},{place}\n" for place in range(60))


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(name: str, text: str) -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def test_three_files_become_one_dataset_and_no_file_of_rejects() -> None:
    dataset = load_custom(
        written("ratings.csv", f"user_id,item_id,timestamp\n{GOOD}"),
        written("items.csv", "item_id,title,categories,price\n001,One,a|b,2.5\n009,Nine,,3\n"),
        written("users.jsonl", '{"user_id": "u1", "age": 30}\n'),
    )
    assert (len(dataset.interactions), dataset.n_users, dataset.n_items) == (60, 60, 8)
    assert dataset.items.row(1) == ("001", "One", None, ["a", "b"], 2.5)
    assert dataset.users["age"].drop_nulls().to_list() == [30]
    assert not list(Path().glob("*.rejects.csv*"))


def test_files_and_frames_give_the_same_dataset() -> None:
    path = written("ratings.csv", "user_id,item_id,timestamp\n1,5,10\n2,6,20\n")
    frame = {"user_id": [1, 2], "item_id": [5, 6], "timestamp": [10, 20]}
    assert load_custom(path).fingerprint == RecommendationDataset(pl.DataFrame(frame)).fingerprint


def test_too_many_bad_rows_are_one_error_that_names_file_line_and_rejects() -> None:
    path = written("ratings.csv", "user_id,item_id,timestamp\nu1,a,5\nu2,b,12/31/2019\nu3,c,1/1/2020\n")
    with pytest.raises(DataError) as caught:
        load_custom(path)
    assert str(caught.value) == 'ratings.csv:3: timestamp "12/31/2019" is neither seconds nor ISO 8601'
    assert '--timestamp-format "%m/%d/%Y"' in caught.value.hint
    assert caught.value.hint.endswith("or see ratings.rejects.csv for all 2 rows")
    settings = DataSettings(timestamp_format="%m/%d/%Y")
    assert len(load_custom(path, settings=settings).interactions) == 3


def test_a_few_bad_rows_of_all_files_are_written_down_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    train = written("ratings.csv", f"user_id,item_id,timestamp\n{GOOD},x,5\n")
    items = written("items.csv", "item_id,title\n" + "".join(f"i{place},T\n" for place in range(30)) + "i0,again\n")
    with caplog.at_level(logging.INFO):
        dataset = load_custom(train, items, rejects_path=Path("bad.csv"))
    assert len(dataset.interactions) == 60
    with Path("bad.csv").open(encoding="utf-8", newline="") as file:
        rejects = list(csv.DictReader(file))
    assert [(row["file"], row["line"]) for row in rejects] == [("ratings.csv", "62"), ("items.csv", "2")]
    assert rejects[0]["reason"] == "user_id is missing"
    assert rejects[1]["content"] == '{"item_id":"i0","title":"T"}'
    assert "ratings.csv: 61 rows, 1 rejected, 0 duplicates merged" in caplog.text
    assert "2 rejected rows are in bad.csv" in caplog.text
    assert sorted(path.name for path in Path().iterdir()) == ["bad.csv", "items.csv", "ratings.csv"]


def test_the_limit_of_rejects_holds_for_the_feature_tables_too() -> None:
    train = written("ratings.csv", f"user_id,item_id,timestamp\n{GOOD}")
    users = written("users.csv", "user_id,age\nu1,3\nu1,4\n")
    with pytest.raises(DataError, match=r'^users\.csv:2: user_id "u1" occurs again') as caught:
        load_custom(train, users_data=users)
    assert caught.value.hint == "correct the rows, or see ratings.rejects.csv for the row"
    dataset = load_custom(train, users_data=users, settings=DataSettings(max_rejected=0.5))
    assert dataset.users["age"].drop_nulls().to_list() == [4]


def test_a_missing_column_names_the_file() -> None:
    with pytest.raises(DataError, match=r"^ratings\.csv: interactions: there is no column item_id; found: user_id, t$"):
        load_custom(written("ratings.csv", "user_id,t\n1,2\n"))


def test_rejects_that_cannot_be_written_are_an_error() -> None:
    path = written("ratings.csv", "user_id,item_id,timestamp\nu1,a,never\n")
    with pytest.raises(DataError, match=r"nowhere/bad\.csv: cannot be written"):
        load_custom(path, rejects_path=Path("nowhere/bad.csv"))


def test_movielens_is_loaded_by_any_of_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,100\n1,20,2.0,200\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n10,Toy Story (1995),Comedy|Drama\n20,Heat,Action\n")
    for name in ("movielens-latest-small", "ml-latest-small", "MovieLens-Latest-Small"):
        dataset = load_dataset(name, tmp_path, settings=DataSettings(min_rating=3), offline=True)
        assert dataset.interactions.weights.tolist() == [1.0, -1.0]
        assert dataset.items.row(0) == (10, "Toy Story (1995)", None, ["Comedy", "Drama"], 1995)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no dataset 'movielens-100'") as caught:
        load_dataset("movielens-100", tmp_path)
    assert caught.value.hint == "did you mean movielens-100k?"
    with pytest.raises(DataError) as caught:
        load_dataset("zzz", tmp_path)
    assert caught.value.hint.startswith("there are demo, movielens-100k")


def test_every_name_leads_to_the_demo_or_to_an_edition_of_movielens() -> None:
    assert set(DATASETS.values()) == {"demo", *FOLDERS}
