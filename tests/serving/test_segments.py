"""Users are asked for by whatever attributes they have."""

import polars as pl
import pytest

from rec_engine.data.state import COLD
from rec_engine.errors import DataError, NotFoundError
from rec_engine.retrieval.predicates import AllOf, Equals, IsNull
from rec_engine.serving.segments import Segments

USERS = pl.DataFrame(
    {
        "user_id": [1, 2, 3],
        "title": ["Dr", "Ms", None],
        "description": ["reads much", "plays", "plays"],
        "categories": ["gold", "silver", None],
        "item_id": [7, 8, 9],
    }
)


def who(segments: Segments, predicate: AllOf | Equals | IsNull) -> list[int]:
    return [user for user in (COLD, 0, 1, 2) if segments.has(user, predicate)]


def test_no_name_of_a_users_attribute_means_anything_else() -> None:
    segments = Segments(USERS)
    assert who(segments, Equals(attribute="title", equals="Dr")) == [0]
    assert who(segments, Equals(attribute="description", equals="plays")) == [1, 2]
    assert who(segments, Equals(attribute="categories", equals="silver")) == [1]
    assert who(segments, IsNull(attribute="title", is_null=True)) == [COLD, 2]
    assert who(segments, Equals(attribute="item_id", equals=8)) == [1]


def test_categories_of_users_may_be_lists() -> None:
    segments = Segments(pl.DataFrame({"user_id": [1, 2], "categories": [["a", "b"], ["a"]]}))
    assert who(segments, AllOf(attribute="categories", all_of=("a", "b"))) == [0]


def test_what_users_have_not_is_said() -> None:
    with pytest.raises(NotFoundError, match="no attribute 'price'"):
        Segments(USERS).has(0, Equals(attribute="price", equals=3))
    with pytest.raises(NotFoundError, match="no attribute 'categories'"):
        Segments(USERS.drop("categories")).has(0, Equals(attribute="categories", equals="a"))
    with pytest.raises(DataError):
        Segments(USERS).has(0, Equals(attribute="title", equals=3))
