import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.dataset import EVENTS, IdMap, RecommendationDataset
from rec_engine.data.validation import Tables, clean_interactions, clean_items, clean_users
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings, EventWeights

PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure

INTERACTIONS = pl.DataFrame(
    {
        "user_id": [7, 3, 7, 3, 7],
        "item_id": ["b", "a", "c", "b", "a"],
        "timestamp": [30, 10, 20, 5, 20],
        "event": ["view", "purchase", "dislike", "rating", "view"],
        "value": [None, None, None, 2.0, None],
    }
)
triples = st.lists(
    st.tuples(st.integers(-3, 5), st.sampled_from("abcd"), st.integers(0, 5)), min_size=1, max_size=30, unique=True
)


def interactions_of(rows: list[tuple[int, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def test_codes_are_contiguous_in_the_order_of_the_ids() -> None:
    ids = IdMap.of(pl.Series([10, 2, 10]), pl.Series([5]))
    assert [ids[code] for code in range(len(ids))] == [2, 5, 10]
    assert ids.codes([10, 2, 5, 4, "10", "x", "-2", "9" * 30]).tolist() == [2, 0, 1, -1, 2, -1, -1, -1]


def test_one_text_id_makes_all_ids_text_and_numbers_still_find_theirs() -> None:
    ids = IdMap.of(pl.Series([10, 2]), pl.Series(["85123A"]))
    assert [ids[code] for code in range(3)] == ["10", "2", "85123A"]
    assert (ids.code(10), ids.code("10"), ids.code("85123A"), ids.code(3)) == (0, 0, 2, -1)


@PROPERTY
@given(
    st.lists(st.integers(-5, 5)) | st.lists(st.text(max_size=2)),
    st.lists(
        st.integers(-6, 6) | st.text(max_size=2) | st.sampled_from(["-0", "03", "٣", str(2**63), 2**63, -(2**63)])
    ),
)
def test_many_ids_are_found_as_each_by_itself(known: list[int | str], asked: list[int | str]) -> None:
    ids = IdMap.of(pl.Series(known, dtype=pl.String if known and isinstance(known[0], str) else pl.Int64))
    assert ids.codes(asked).tolist() == [ids.code(one) for one in asked]


@PROPERTY
@given(st.lists(st.one_of(st.text(min_size=1), st.integers(-(2**63), 2**63 - 1).map(str)), min_size=1))
def test_every_id_gets_its_own_code_and_back(texts: list[str]) -> None:
    ids = IdMap.of(pl.Series(texts, dtype=pl.String))
    codes = ids.codes(texts)
    assert [ids[code] for code in codes] == texts
    assert set(codes.tolist()) == set(range(len(ids)))


@pytest.mark.parametrize(
    "text", ["--5", "-", "", "٣", "²", "007", "-0", "+5", "5 ", "5.0", "1_0", "9" * 5_000, str(2**63)]
)
def test_what_is_not_the_one_spelling_of_an_integer_comes_back_as_it_went_in(text: str) -> None:
    ids = IdMap.of(pl.Series([0, 3, 5, 7, 10]))
    assert (ids.typed(text), ids.code(text)) == (text, -1)


@PROPERTY
@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_found_by_its_text_and_comes_back_as_one(number: int) -> None:
    ids = IdMap.of(pl.Series([number], dtype=pl.Int64))
    assert (ids.typed(str(number)), ids.code(number), ids.code(str(number))) == (number, 0, 0)
    assert IdMap.of(pl.Series(["a"])).typed(str(number)) == str(number)


def test_interactions_lie_by_user_and_time_and_ties_keep_the_input_order() -> None:
    dataset = RecommendationDataset(INTERACTIONS)
    past = dataset.interactions
    assert [dataset.user_ids[code] for code in past.user_codes] == [3, 3, 7, 7, 7]
    assert [dataset.item_ids[code] for code in past.item_codes] == ["b", "a", "c", "a", "b"]
    assert past.timestamps.tolist() == [5, 10, 20, 20, 30]
    assert [EVENTS[code] for code in past.events] == ["rating", "purchase", "dislike", "view", "view"]
    assert past.starts.tolist() == [0, 2, 5]
    assert past.items_of(0).tolist() == [1, 0]


def test_arrays_have_the_documented_types() -> None:
    past = RecommendationDataset(INTERACTIONS).interactions
    arrays = (past.item_codes, past.timestamps, past.events, past.values, past.weights, past.starts, past.user_codes)
    assert [str(array.dtype) for array in arrays] == ["int32", "int64", "uint8", "float32", "float32", "int64", "int32"]


def test_order_within_a_second_is_kept_although_timestamps_are_seconds() -> None:
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": ["late", "early"], "timestamp": [5.9, 5.1]})
    dataset = RecommendationDataset(frame)
    assert [dataset.item_ids[code] for code in dataset.interactions.item_codes] == ["early", "late"]
    assert dataset.interactions.timestamps.tolist() == [5, 5]


def test_weights_come_from_the_event_and_low_ratings_count_against_the_item() -> None:
    settings = DataSettings(event_weights=EventWeights(purchase=4.0), min_rating=3.0)
    past = RecommendationDataset(INTERACTIONS, settings=settings).interactions
    assert past.weights.tolist() == [-1.0, 4.0, -1.0, 1.0, 1.0]
    assert past.values[0] == 2.0
    assert np.isnan(past.values[1:]).all()
    assert past.positive().starts.tolist() == [0, 1, 3]


def test_users_and_items_known_only_by_their_features_are_part_of_the_dataset() -> None:
    users = pl.DataFrame({"user_id": [1, 7], "country": ["IS", "UK"]})
    items = pl.DataFrame({"item_id": ["z", "a"], "title": ["Zed", "Ay"], "categories": ["x|y", ""]})
    dataset = RecommendationDataset(INTERACTIONS, users, items)
    assert dataset.users.to_dicts() == [
        {"user_id": 1, "country": "IS"},
        {"user_id": 3, "country": None},
        {"user_id": 7, "country": "UK"},
    ]
    assert dataset.items["item_id"].to_list() == ["a", "b", "c", "z"]
    assert dataset.items["title"].to_list() == ["Ay", None, None, "Zed"]
    assert dataset.interactions.starts.tolist() == [0, 0, 2, 5]
    assert (dataset.n_users, dataset.n_items) == (3, 4)
    assert "5 interactions, 3 users, 4 items" in repr(dataset)


def test_integer_ids_meet_text_ids_of_the_feature_table() -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [5], "timestamp": [0]})
    dataset = RecommendationDataset(
        frame, item_features=pl.DataFrame({"item_id": ["5", "X1"], "title": ["five", "ex"]})
    )
    assert dataset.items.select("item_id", "title").rows() == [("5", "five"), ("X1", "ex")]
    assert dataset.interactions.item_codes.tolist() == [0]


@PROPERTY
@given(triples)
def test_interactions_are_the_rows_sorted_by_user_and_time(rows: list[tuple[int, str, int]]) -> None:
    dataset = RecommendationDataset(interactions_of(rows))
    past = dataset.interactions
    found = [
        (dataset.user_ids[user], dataset.item_ids[item], int(moment))
        for user, item, moment in zip(past.user_codes, past.item_codes, past.timestamps, strict=True)
    ]
    assert found == sorted(rows, key=lambda row: (row[0], row[2]))


@PROPERTY
@given(triples)
def test_order_of_rows_matters_only_between_equal_times(rows: list[tuple[int, str, int]]) -> None:
    distinct_times = list({(user, moment): (user, item, moment) for user, item, moment in rows}.values())
    first = RecommendationDataset(interactions_of(distinct_times))
    again = RecommendationDataset(interactions_of(distinct_times[::-1]))
    assert first.fingerprint == again.fingerprint


def test_any_change_of_the_data_changes_the_fingerprint() -> None:
    titles = pl.DataFrame({"item_id": ["a"], "title": ["Ay"]})
    fingerprints = {
        RecommendationDataset(INTERACTIONS).fingerprint,
        RecommendationDataset(INTERACTIONS, item_features=titles).fingerprint,
        RecommendationDataset(INTERACTIONS, pl.DataFrame({"user_id": [3], "age": [5]})).fingerprint,
        RecommendationDataset(INTERACTIONS.head(4)).fingerprint,
        RecommendationDataset(INTERACTIONS.with_columns(timestamp=pl.col("timestamp") + 1)).fingerprint,
        RecommendationDataset(INTERACTIONS, settings=DataSettings(min_rating=3)).fingerprint,
    }
    assert len(fingerprints) == 6


def test_pandas_frames_give_the_same_dataset_as_polars_frames() -> None:
    frame = pd.DataFrame(INTERACTIONS.to_dict(as_series=False))
    assert RecommendationDataset(frame).fingerprint == RecommendationDataset(INTERACTIONS).fingerprint


def test_cleaned_tables_give_the_same_dataset_without_cleaning_again() -> None:
    settings = DataSettings()
    tables = Tables(clean_interactions(INTERACTIONS, settings).frame, clean_users(None).frame, clean_items(None).frame)
    dataset = RecommendationDataset.from_clean(tables, settings)
    assert dataset.fingerprint == RecommendationDataset(INTERACTIONS).fingerprint


def test_where_keeps_the_axis_of_users() -> None:
    past = RecommendationDataset(INTERACTIONS).interactions
    none = past.where(np.zeros(5, dtype=np.bool_))
    assert (len(none), none.n_users, none.starts.tolist()) == (0, 2, [0, 0, 0])
    assert past.where(past.timestamps < 20).starts.tolist() == [0, 2, 2]


def test_data_without_interactions_is_an_error() -> None:
    with pytest.raises(DataError, match="not one interaction"):
        RecommendationDataset(INTERACTIONS.clear())


def test_too_many_unusable_rows_are_an_error() -> None:
    with pytest.raises(DataError, match=r"interactions: 1 of 5 rows cannot be used .* row 1: user_id is missing"):
        RecommendationDataset(INTERACTIONS.with_columns(user_id=pl.Series([None, 3, 7, 3, 7])))
