"""Rows of files become rows of the log: by the rules of training files, with ids that are always the same."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.event_table import clean_events, log_rows
from rec_engine.data.validation import Cleaned, clean_interactions
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

SETTINGS = DataSettings()
NOW = 1_700_000_000


def cleaned(**columns: object) -> Cleaned:
    """Return one good event a row in which the given columns stand in the place of the usual ones."""
    n_rows = next((len(cells) for cells in columns.values() if isinstance(cells, list)), 1)
    usual: dict[str, object] = {"user_id": list(range(n_rows)), "item_id": ["a"] * n_rows, "timestamp": [5] * n_rows}
    return clean_events(pl.DataFrame({**usual, **columns}), SETTINGS, NOW)


def logged(**columns: object) -> pl.DataFrame:
    found = cleaned(**columns)
    assert found.rejects.is_empty(), found.rejects
    return log_rows(found.frame)


def test_columns_come_out_as_the_log_has_them() -> None:
    found = logged(
        event_id=["e", "f"], timestamp=["1970-01-01T00:00:09.5", "10"], rating=["4.5", None],
        action=[None, "Click"], request_id=["r", " "], device=["tv", None],
    ).drop("user_id")  # fmt: skip
    assert found.to_dicts() == [
        {
            "event_id": "e", "item_id": "a", "event": "rating", "timestamp": 9, "value": 4.5, "request_id": "r",
            "context": '{"device":"tv"}',
        },
        {
            "event_id": "f", "item_id": "a", "event": "click", "timestamp": 10, "value": None, "request_id": None,
            "context": None,
        },
    ]  # fmt: skip


def test_ids_are_text_and_lose_nothing() -> None:
    assert logged(user_id=[12, 2**62])["user_id"].to_list() == ["12", str(2**62)]
    assert logged(user_id=["007"])["user_id"].to_list() == ["007"]
    assert logged(item_id=[1.0, 2.0])["item_id"].to_list() == ["1", "2"]


def test_the_id_of_a_row_depends_on_what_it_says_and_on_nothing_else() -> None:
    known = logged(user_id=["ann"], item_id=["tea"], timestamp=[1_600_000_000], event=["click"], value=[2.0])
    assert known["event_id"].to_list() == ["1600000000-2dea0fd5a7072788"]
    same = logged(
        user_id=["bob", "ann"], item_id=["x", "tea"], timestamp=["1", "2020-09-13T12:26:40Z"], event=["view", "CLICK"],
        value=["", "2"], device=["a", "b"],
    )  # fmt: skip
    assert same["event_id"][1] == known["event_id"][0]


def test_integers_and_their_texts_are_the_same_event() -> None:
    assert logged(user_id=[7], item_id=[8])["event_id"].equals(logged(user_id=["7"], item_id=["8"])["event_id"])


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.text("ab1", min_size=1, max_size=3),
            st.text("ab1", min_size=1, max_size=3),
            st.integers(0, 2) | st.just(1_500_000),
            st.sampled_from(["view", "click"]),
            st.none() | st.sampled_from([0.0, -0.0, 1.0, 1e-9]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_two_rows_have_one_id_just_where_training_takes_them_for_one(
    rows: list[tuple[str, str, int, str, float | None]],
) -> None:
    frame = pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "event", "value"], orient="row")
    ids = log_rows(clean_events(frame, SETTINGS, NOW).frame)["event_id"]
    assert ids.n_unique() == len(clean_interactions(frame, SETTINGS).frame)


def test_context_is_what_has_no_meaning_of_its_own() -> None:
    found = logged(
        price=[1.5, None, float("nan")],
        tags=[["a", "b"], [], None],
        is_new=[True, None, None],
        quote=['"\n', None, None],
    )
    parsed = [json.loads(text) if text else None for text in found["context"]]
    assert parsed == [{"price": 1.5, "tags": ["a", "b"], "is_new": True, "quote": '"\n'}, {"tags": []}, None]


def test_the_fields_of_a_context_stand_beside_other_columns() -> None:
    found = logged(context=[{"device": "tv"}, {"device": None}], page=["home", None])
    assert [text and json.loads(text) for text in found["context"]] == [{"page": "home", "device": "tv"}, None]
    with pytest.raises(DataError, match="context has the name of a column"):
        cleaned(context=[{"device": "tv"}], device=["tv"])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user_id": [None, "x"]}, "user_id is missing"),
        ({"item_id": ["a\0b", "x"]}, "holds a NUL"),
        ({"event": ["stare", "view"]}, "is not one of view"),
        ({"value": [2e12, 1]}, "is not a number of at most 1e+12"),
        ({"timestamp": ["soon", "1"]}, "is neither seconds nor ISO 8601"),
        ({"timestamp": [NOW + 90_000, NOW + 80_000]}, "lies in the future"),
        ({"event_id": ["x" * 129, "x"]}, "is longer than 128 characters"),
        ({"request_id": ["a\0b", "x"]}, "holds a NUL"),
        ({"essay": ["x" * 5_000, "x"]}, "is longer than 4,096 characters; leave out columns"),
    ],
)
def test_rows_that_the_log_cannot_take_are_rejected_with_their_number(columns: dict[str, object], reason: str) -> None:
    found = cleaned(**columns)
    assert found.rejects["row"].to_list() == [1]
    assert reason in found.rejects["reason"][0]
    assert len(found.frame) == 1


def test_columns_that_are_no_text_are_refused() -> None:
    with pytest.raises(DataError, match="the column picture holds Binary"):
        cleaned(picture=[b"\xff"])
    with pytest.raises(DataError, match="there is no column item_id"):
        clean_events(pl.DataFrame({"user_id": [1], "timestamp": [1]}), SETTINGS, NOW)


def test_no_rows_are_no_events() -> None:
    assert log_rows(cleaned(user_id=[None]).frame).is_empty()
