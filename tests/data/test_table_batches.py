"""Files read in pieces give the rows of files read at once."""

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data import table_batches as module
from rec_engine.data.table_batches import table_batches
from rec_engine.data.tables import LINE, read_table
from rec_engine.errors import DataError

ROWS = pl.DataFrame({"user_id": ["ann", None, "0007", 'b"c'] * 50, "n": range(200)})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 7)
    monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    monkeypatch.setattr(module, "MAX_ROW_BYTES", 1_000)


def written(path: Path) -> Path:
    if path.suffix == ".jsonl":
        ROWS.write_ndjson(path)
    elif path.suffix == ".parquet":
        ROWS.write_parquet(path, row_group_size=10)
    else:
        ROWS.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_pieces_together_are_the_whole_table(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    batches = list(table_batches(path))
    assert len(batches) > 5
    assert pl.concat(batches).equals(read_table(path))


def test_compressed_text_and_a_byte_order_mark_are_read_through(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + written(tmp_path / "b.csv").read_bytes()))
    assert pl.concat(table_batches(path)).equals(read_table(path))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.text('ab,"\n é', min_size=1, max_size=40), min_size=2, max_size=2), min_size=1, max_size=30)
)
def test_quoted_line_ends_and_quotes_never_part_a_row(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("written") / "a.csv"
    pl.DataFrame(cells, schema=["first", "second"], orient="row").write_csv(path)
    assert pl.concat(table_batches(path)).equals(read_table(path))


def test_errors_name_the_line_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    path.write_text(path.read_text() + "\n{broken\n")
    with pytest.raises(DataError, match=r"a\.jsonl:202: not JSON"):
        list(table_batches(path))
    path = written(tmp_path / "a.csv")
    path.write_bytes(path.read_bytes() + b"\xff,1\n")
    with pytest.raises(DataError, match=r"a\.csv:202: the text is not UTF-8"):
        list(table_batches(path))


def test_a_column_that_only_later_rows_have_is_in_later_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user_id": 1}\n' * 20 + '{"user_id": "x", "device": "tv"}\n' * 20)
    columns = [set(batch.columns) for batch in table_batches(path)]
    assert columns[0] == {"user_id", LINE}
    assert columns[-1] == {"user_id", "device", LINE}


def test_a_row_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"never closed\n' + "2,3\n" * 1_000)
    with pytest.raises(DataError, match="does not end"):
        list(table_batches(path))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.csv", None, "no such file"),
        ("gone.parquet", None, "no such file"),
        ("a.csv", b"", "not one row"),
        ("a.csv", b"user_id,n\n", "not one row"),
        ("a.jsonl", b"\n \n", "not one row"),
        ("a.parquet", b"nothing of the kind", "not readable as Parquet"),
        ("a.csv.gz", b"not compressed", "cannot be read"),
        ("a.txt", b"a", "cannot be told from its name"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        list(table_batches(tmp_path / name))


def test_a_directory_is_not_read_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(DataError, match="is a directory"):
        list(table_batches(tmp_path / "a.parquet"))
