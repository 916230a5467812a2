import datetime
import json

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.tables import LINE, SURPLUS
from rec_engine.data.validation import EVENTS, clean_interactions, clean_items, clean_users, to_polars
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure

SETTINGS = DataSettings()
MOMENT_US = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z


def rows(**columns: object) -> pl.DataFrame:
    """Return good interactions in which the given columns stand in the place of the usual ones."""
    n_rows = next((len(cells) for cells in columns.values() if isinstance(cells, list | pl.Series)), 1)
    usual: dict[str, object] = {"user_id": list(range(n_rows)), "item_id": ["a"] * n_rows, "timestamp": [1] * n_rows}
    return pl.DataFrame({**usual, **columns})


@pytest.mark.parametrize(
    "text",
    [
        "1700000000",
        " 1700000000.0 ",
        "1700000000000",
        "1700000000000000",
        "2023-11-14T22:13:20",
        "2023-11-14 22:13:20Z",
        "2023-11-14T22:13:20.000000+00:00",
        "2023-11-15T00:13:20+02:00",
        "2023-11-14T19:43:20-0230",
        "2023-11-15T00:13:20+02",
    ],
)
def test_every_spelling_of_a_moment_gives_the_same_microseconds(text: str) -> None:
    assert clean_interactions(rows(timestamp=[text]), SETTINGS).frame["timestamp"].to_list() == [MOMENT_US]


def test_a_text_column_may_mix_all_spellings() -> None:
    texts = ["1700000000", "1700000000123", "2023-11-14", "2023-11-14T22:13", "11/14/2023"]
    found = clean_interactions(rows(timestamp=texts), DataSettings(timestamp_format="%m/%d/%Y")).frame["timestamp"]
    midnight_us = 1_699_920_000_000_000
    assert found.to_list() == [MOMENT_US, MOMENT_US + 123_000, midnight_us, MOMENT_US - 20_000_000, midnight_us]


@PROPERTY
@given(st.datetimes(min_value=datetime.datetime(1970, 1, 1), max_value=datetime.datetime(2200, 12, 31)))
def test_iso_text_and_date_types_agree_to_the_microsecond(moment: datetime.datetime) -> None:
    as_text = clean_interactions(rows(timestamp=[moment.isoformat()]), SETTINGS).frame["timestamp"]
    as_type = clean_interactions(rows(timestamp=[moment]), SETTINGS).frame["timestamp"]
    assert (
        as_text.to_list()
        == as_type.to_list()
        == [(moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)]
    )


def test_date_columns_and_zoned_columns_are_read_in_utc() -> None:
    date = clean_interactions(rows(timestamp=[datetime.date(2020, 1, 1)]), SETTINGS).frame
    zone = datetime.timezone(datetime.timedelta(hours=1))
    zoned = clean_interactions(rows(timestamp=[datetime.datetime(2020, 1, 1, 1, tzinfo=zone)]), SETTINGS).frame
    assert date["timestamp"].to_list() == zoned["timestamp"].to_list() == [1_577_836_800_000_000]


@pytest.mark.parametrize("text", ["12/31/2019", "-5", "nan", "inf", "2201-01-01", "2023-02-30", "9e99", "1969-12-31"])
def test_a_timestamp_that_cannot_be_read_is_rejected_with_its_text(text: str) -> None:
    cleaned = clean_interactions(rows(timestamp=[text]), SETTINGS)
    assert cleaned.frame.is_empty()
    assert cleaned.rejects["reason"].to_list() == [f'timestamp "{text}" is neither seconds nor ISO 8601']


def test_a_timestamp_format_is_used_for_integer_columns_too() -> None:
    cleaned = clean_interactions(rows(timestamp=[20200101]), DataSettings(timestamp_format="%Y%m%d"))
    assert cleaned.frame["timestamp"].to_list() == [1_577_836_800_000_000]


@pytest.mark.parametrize("column", [[True], [datetime.timedelta(1)], [datetime.time(1)], [[1]]])
def test_a_timestamp_column_of_a_type_that_holds_no_moments_is_an_error(column: list[object]) -> None:
    with pytest.raises(DataError, match="the column timestamp holds"):
        clean_interactions(rows(timestamp=column), SETTINGS)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", " 2 ", "-3"], [1, 2, -3]),
        (["1", "007"], ["1", "007"]),
        (["1", "85123A"], ["1", "85123A"]),
        (["9223372036854775807", "9223372036854775808"], ["9223372036854775807", "9223372036854775808"]),
        ([1.0, 2.0], [1, 2]),
        ([1.5, 2.0], ["1.5", "2.0"]),
        (["-0"], ["-0"]),
    ],
)
def test_ids_are_integers_only_if_all_of_them_are_written_as_integers(
    ids: list[object], expected: list[object]
) -> None:
    assert clean_interactions(rows(item_id=ids), SETTINGS).frame["item_id"].to_list() == expected


@PROPERTY
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=8))
def test_ids_come_back_as_they_came_but_for_white_space(ids: list[str]) -> None:
    found = clean_interactions(rows(item_id=ids), SETTINGS).frame["item_id"]
    assert [str(item) for item in found] == [text.strip() for text in ids if text.strip()]


def test_missing_empty_and_overlong_ids_are_rejected() -> None:
    cleaned = clean_interactions(rows(user_id=["a", None, " ", "x" * 257, "a\0b"]), SETTINGS)
    assert cleaned.frame["user_id"].to_list() == ["a"]
    assert cleaned.rejects["row"].to_list() == [2, 3, 4, 5]
    assert cleaned.rejects["reason"].to_list()[:2] == ["user_id is missing", "user_id is missing"]
    assert cleaned.rejects["reason"][2].endswith("is longer than 256 characters, or holds a NUL")


@pytest.mark.parametrize(
    "names",
    [
        ("userId", "movieId", "rating", "timestamp"),
        ("USER", "Item", "RATING", "Date"),
        ("userid", "movieid", "rating", "ts"),
    ],
)
def test_usual_spellings_of_the_columns_are_known(names: tuple[str, ...]) -> None:
    frame = pl.DataFrame([(1, 2, 4.5, 3)], schema=list(names), orient="row")
    assert clean_interactions(frame, SETTINGS).frame.row(0) == (1, 2, 3_000_000, "rating", 4.5)


def test_our_own_column_name_beats_an_alias_which_stays_as_context() -> None:
    cleaned = clean_interactions(rows(user=["x"], rating=[1.0], value=[2.0]), SETTINGS)
    assert cleaned.frame.columns == ["user_id", "item_id", "timestamp", "event", "value", "user", "rating"]
    assert cleaned.frame.row(0) == (0, "a", 1_000_000, "view", 2.0, "x", 1.0)


def test_a_missing_column_is_named_with_those_that_were_found() -> None:
    with pytest.raises(DataError, match="interactions: there is no column item_id; found: user_id, when"):
        clean_interactions(pl.DataFrame({"user_id": [1], "when": [2]}), SETTINGS)


def test_an_event_is_a_rating_only_where_a_rating_was_given() -> None:
    cleaned = clean_interactions(rows(rating=["5", "", "nan"]), SETTINGS)
    assert cleaned.frame["event"].to_list() == ["rating", "view", "view"]
    assert cleaned.frame["value"].to_list() == [5.0, None, None]


def test_events_are_known_in_any_case_and_unknown_ones_rejected() -> None:
    cleaned = clean_interactions(rows(event=["View", " PURCHASE", None, "yodel"]), SETTINGS)
    assert cleaned.frame["event"].to_list() == ["view", "purchase", "view"]
    assert cleaned.rejects["reason"].to_list() == [f'event "yodel" is not one of {", ".join(EVENTS)}']


@pytest.mark.parametrize("value", ["abc", "inf", "-inf", float("inf"), 1.1e12, "-1e300"])
def test_values_that_are_no_numbers_or_beyond_all_bounds_are_rejected(value: object) -> None:
    rejects = clean_interactions(rows(value=[value]), SETTINGS).rejects
    assert rejects["reason"][0].endswith("is not a number of at most 1e+12")


def test_repeated_rows_are_one_unless_their_event_ids_differ() -> None:
    same = clean_interactions(rows(user_id=[1, 1, 1], timestamp=[5, 5, 5]), SETTINGS)
    assert (len(same.frame), same.n_duplicates) == (1, 2)
    named = clean_interactions(rows(user_id=[1, 1, 1], timestamp=[5, 5, 5], event_id=["x", "y", "x"]), SETTINGS)
    assert named.frame["event_id"].to_list() == ["x", "y"]


def test_exact_repetitions_are_merged_into_the_first_and_counted() -> None:
    frame = rows(user_id=[1, 2, 1, 1], timestamp=[5, 5, 5, 6], device=["a", "b", "c", "d"])
    cleaned = clean_interactions(frame, SETTINGS)
    assert cleaned.frame["device"].to_list() == ["a", "b", "d"]
    assert (cleaned.n_rows, cleaned.n_duplicates, len(cleaned.rejects)) == (4, 1, 0)


def test_rejects_carry_the_line_of_the_file_and_the_row_as_it_came() -> None:
    cleaned = clean_interactions(rows(user_id=["", "é"], **{LINE: [2, 17]}), SETTINGS)
    assert LINE not in cleaned.frame.columns
    assert cleaned.rejects.schema == {"row": pl.Int64, "reason": pl.String, "content": pl.String}
    assert cleaned.rejects["row"].to_list() == [2]
    assert json.loads(cleaned.rejects["content"][0]) == {"user_id": "", "item_id": "a", "timestamp": 1}


def test_a_row_with_more_fields_than_the_header_is_rejected() -> None:
    cleaned = clean_interactions(rows(user_id=["1", "2"], **{SURPLUS: [None, "x"]}), SETTINGS)
    assert cleaned.frame.columns == ["user_id", "item_id", "timestamp", "event", "value"]
    assert cleaned.rejects["reason"].to_list() == ['surplus field "x" stands beyond the header\'s last column']


def test_tables_with_too_many_rejects_are_not_accepted() -> None:
    cleaned = clean_interactions(rows(timestamp=["1"] * 18 + ["x", "y"]), SETTINGS)
    with pytest.raises(DataError, match=r'interactions: 2 of 20 rows .* the first is row 19: timestamp "x"') as caught:
        cleaned.accepted("interactions")
    assert "--timestamp-format" in caught.value.hint
    one_in_twenty = clean_interactions(rows(timestamp=["1"] * 19 + ["x"]), SETTINGS)
    assert len(one_in_twenty.accepted("interactions")) == 19


@PROPERTY
@given(st.lists(st.tuples(st.sampled_from(["1", "", "x"]), st.sampled_from(["5", "no"]), st.sampled_from(["1", "z"]))))
def test_every_row_is_kept_merged_or_rejected(cells: list[tuple[str, str, str]]) -> None:
    schema = {"user_id": pl.String, "timestamp": pl.String, "value": pl.String}
    frame = pl.DataFrame(cells, schema=schema, orient="row").with_columns(item_id=pl.lit("i"))
    cleaned = clean_interactions(frame, SETTINGS)
    assert len(cleaned.frame) + cleaned.n_duplicates + len(cleaned.rejects) == cleaned.n_rows == len(cells)
    assert cleaned.rejects["reason"].null_count() == 0


def test_items_always_have_the_four_columns_and_typed_attributes() -> None:
    frame = pl.DataFrame(
        {
            "itemId": ["1", "2", "3"],
            "genres": ["a| b||a", "", None],
            "year": ["1990", "", "1991"],
            "price": ["2.5", "3", None],
            "post_code": ["01067", "2", "3"],
            "sold": ["True", "false", ""],
            "weight": [1.0, float("inf"), float("nan")],
            "note": ["x", "1", " "],
        }
    )
    items = clean_items(frame).accepted("items")
    assert items.columns[:4] == ["item_id", "title", "description", "categories"]
    assert items["categories"].to_list() == [["a", "b"], [], []]
    assert items["year"].to_list() == [1990, None, 1991]
    assert items["price"].to_list() == [2.5, 3.0, None]
    assert items["post_code"].to_list() == ["01067", "2", "3"]
    assert items["sold"].to_list() == [True, False, None]
    assert items["weight"].to_list() == [1.0, None, None]
    assert items["note"].to_list() == ["x", "1", None]


def test_categories_may_come_as_a_list_column() -> None:
    items = clean_items(pl.DataFrame({"item_id": [1, 2], "categories": [[" b", "a", "b", ""], None]})).frame
    assert items["categories"].to_list() == [["b", "a"], []]


def test_of_items_with_one_id_the_last_is_kept_and_the_others_are_reported() -> None:
    cleaned = clean_items(pl.DataFrame({"item_id": ["1", "2", " 1 ", None], "title": ["old", "x", "new", "y"]}))
    assert dict(cleaned.frame.select("item_id", "title").iter_rows()) == {2: "x", 1: "new"}
    assert cleaned.rejects["row"].to_list() == [1, 4]
    assert cleaned.rejects["reason"][0].startswith('item_id "1" occurs again further down')


def test_no_table_is_an_empty_table_with_the_same_columns() -> None:
    assert clean_items(None).accepted("items").schema == {
        "item_id": pl.Int64,
        "title": pl.String,
        "description": pl.String,
        "categories": pl.List(pl.String),
    }
    assert clean_users(None).accepted("users").schema == {"user_id": pl.Int64}


def test_users_keep_a_column_that_means_something_only_for_interactions() -> None:
    users = clean_users(pl.DataFrame({"user": ["u1"], "date": ["2020-01-01"], "rating": ["3"]})).frame
    assert users.to_dicts() == [{"user_id": "u1", "date": "2020-01-01", "rating": 3}]


def test_a_pandas_frame_becomes_polars_with_null_for_nan() -> None:
    frame = pd.DataFrame({"n": [1.0, float("nan")], "t": ["a", None], "when": pd.to_datetime(["2020-01-01", None])})
    found = to_polars(frame)
    assert found.to_dicts() == [
        {"n": 1.0, "t": "a", "when": datetime.datetime(2020, 1, 1)},
        {"n": None, "t": None, "when": None},
    ]


def test_a_pandas_column_of_several_types_becomes_text() -> None:
    assert to_polars(pd.DataFrame({"id": [1, "a", None]}))["id"].to_list() == ["1", "a", None]


def test_polars_frames_pass_as_they_are_and_other_things_are_errors() -> None:
    frame = pl.DataFrame({"a": [1]})
    assert to_polars(frame) is frame
    assert to_polars(frame.lazy()).equals(frame)
    with pytest.raises(DataError, match="a table was expected, not a list"):
        to_polars([1, 2])
