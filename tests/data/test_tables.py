import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.tables import LINE, SURPLUS, read_table
from rec_engine.errors import DataError

PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure


def written(directory: Path, name: str, text: str | bytes) -> Path:
    path = directory / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_csv_cells_stay_text_and_rows_know_their_line(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", "id,n\n00123,1\n7,\n"))
    assert table.to_dicts() == [{"id": "00123", "n": "1", LINE: 2}, {"id": "7", "n": None, LINE: 3}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,n\r\n00123,1\r\n"),
        ("a.CSV", "\ufeffid,n\n00123,1"),
        ("a.tsv", "id\tn\n00123\t1\n"),
        ("a.csv.gz", gzip.compress(b"id,n\n00123,1\n", mtime=0)),
    ],
)
def test_delimited_files_read_alike_whatever_their_dress(tmp_path: Path, name: str, text: str | bytes) -> None:
    assert read_table(written(tmp_path, name, text)).to_dicts() == [{"id": "00123", "n": "1", LINE: 2}]


def test_lines_are_counted_through_blank_lines_and_quoted_line_ends(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", 'id,n\n1,2\n\n"x\n\ny",3\n5,6\n'))
    assert table["id"].to_list() == ["1", "x\n\ny", "5"]
    assert table[LINE].to_list() == [2, 4, 7]


def test_short_rows_end_in_nulls_and_long_rows_show_their_surplus(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", "id,n\n1\n2,3,4,5\n6,7,\n"))
    assert table["n"].to_list() == [None, "3", "7"]
    assert table[SURPLUS].to_list() == [None, "4", None]
    assert SURPLUS not in read_table(written(tmp_path, "b.csv", "id,n\n1,2\n")).columns


@PROPERTY
@given(st.lists(st.lists(st.text('ab,"\n é', min_size=1, max_size=4), min_size=2, max_size=2), min_size=1, max_size=6))
def test_what_polars_writes_is_read_back_with_every_row(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("written") / "a.csv"
    pl.DataFrame(cells, schema=["first", "second"], orient="row").write_csv(path)
    table = read_table(path)
    assert table.select("first", "second").rows() == [tuple(row) for row in cells]
    text = path.read_text(encoding="utf-8")
    ends_before = [1 + sum(1 + "".join(row).count("\n") for row in cells[:place]) for place in range(len(cells))]
    assert table[LINE].to_list() == [end + 1 for end in ends_before], text


def test_json_lines_keep_their_types_and_lines(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.jsonl", '{"id": "007"}\n\n{"id": "8", "n": 2}\n'))
    assert table.to_dicts() == [{"id": "007", "n": None, LINE: 1}, {"id": "8", "n": 2, LINE: 3}]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pl.DataFrame({"id": [5, 6], "tags": [["a"], []]}).write_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table.to_dicts() == [{"id": 5, "tags": ["a"], LINE: 1}, {"id": 6, "tags": [], LINE: 2}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv: the file is empty"),
        ("a.csv", " \n\n", "a.csv: the file is empty"),
        ("a.csv", "id,n\n", "a.csv: there are columns but no rows"),
        ("a.csv", b"id,n\n1,2\n3,caf\xe9\n", "a.csv:3: the text is not UTF-8"),
        ("a.csv", 'id,n\n1,2\n3,"4\n5,6\n', 'a.csv:3: the quotes of "4 do not match'),
        ("a.csv.gz", b"not gzip", "a.csv.gz: cannot be read: "),
        ("a.csv.gz", gzip.compress(b"id,n\n1,2\n" * 99, mtime=0)[:-9], "a.csv.gz: cannot be read: "),
        ("a.jsonl", '{"id": 1}\n{"id": 2\n', "a.jsonl:2: not JSON: "),
        ("a.jsonl", '{"id": 1}\n\n[2]\n', r"a.jsonl:3: holds b'\[2\]', not an object"),
        ("a.jsonl", b'{"id": 1}\n{"id": "\xe9"}\n', "a.jsonl:2: the text is not UTF-8"),
        ("a.jsonl", '{"id": 1}\n{"id": [2]}\n', "a.jsonl: failed to determine supertype"),
        ("a.parquet", "not parquet", "a.parquet: not readable as Parquet: "),
        ("a.xlsx", "id,n\n1,2\n", "a.xlsx: what kind of file this is"),
        ("a.parquet.gz", "x", "a.parquet.gz: what kind of file this is"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(written(tmp_path, name, text))
    assert caught.value.hint


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv: no such file") as caught:
        read_table(tmp_path / "a.csv")
    assert str(Path.cwd()) in caught.value.hint
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DataError, match=r"d\.csv: is a directory"):
        read_table(tmp_path / "d.csv")
