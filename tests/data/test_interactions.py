import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.dataset import Interactions, RecommendationDataset
from rec_engine.data.interactions import ROW_DTYPES, stacked

PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure

rows_of_a_past = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 9), st.sampled_from(["view", "dislike"])),
    min_size=1,
    max_size=30,
)
users_asked = st.lists(st.integers(-1, 5), max_size=8)


def past_of(rows: list[tuple[int, int, int, str]]) -> Interactions:
    """Return a past of six users, some of whom may have done nothing."""
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row")
    return RecommendationDataset(frame, pl.DataFrame({"user_id": range(6)})).interactions


def as_lists(past: Interactions) -> dict[str, list[float]]:
    return {name: np.nan_to_num(getattr(past, name), nan=-1.0).tolist() for name in (*ROW_DTYPES, "starts")}


@PROPERTY
@given(rows_of_a_past, users_asked)
def test_the_interactions_of_some_users_are_theirs_in_the_order_asked_for(
    rows: list[tuple[int, int, int, str]], users: list[int]
) -> None:
    past = past_of(rows)
    found = past.of_users(np.array(users, dtype=np.int32))
    assert found.n_users == len(users)
    for place, user in enumerate(users):
        assert found.items_of(place).tolist() == (past.items_of(user).tolist() if user >= 0 else [])
        times = past.timestamps[past.starts[user] : past.starts[user + 1]].tolist() if user >= 0 else []
        assert found.timestamps[found.starts[place] : found.starts[place + 1]].tolist() == times


@PROPERTY
@given(rows_of_a_past, st.integers(0, 6), st.integers(0, 6))
def test_ranges_of_users_one_after_the_other_are_all_of_them(
    rows: list[tuple[int, int, int, str]], first: int, second: int
) -> None:
    past, bounds = past_of(rows), [0, *sorted([first, second]), 6]
    parts = [past.of_range(slice(*pair)) for pair in zip(bounds[:-1], bounds[1:], strict=True)]
    assert as_lists(stacked(iter(parts), len(past) + 5, np.empty)) == as_lists(past)


@PROPERTY
@given(rows_of_a_past)
def test_what_is_counted_and_marked_is_what_numpy_finds_at_once(rows: list[tuple[int, int, int, str]]) -> None:
    past = past_of(rows)
    assert past.user_codes.tolist() == np.repeat(np.arange(6), np.diff(past.starts)).tolist()
    assert past.item_counts(8).tolist() == np.bincount(past.item_codes, minlength=8).tolist()
    assert past.mask(lambda part: part.timestamps > 4).tolist() == (past.timestamps > 4).tolist()
    liked = past.positive()
    assert liked.item_codes.tolist() == past.item_codes[past.weights > 0].tolist()
    assert np.diff(liked.starts).tolist() == np.bincount(past.user_codes[past.weights > 0], minlength=6).tolist()
