"""Tables of attributes become columns of numbers."""

import numpy as np
import polars as pl
import pytest

from rec_engine.errors import BundleError
from rec_engine.models.attributes import MAX_VALUES, AttributeEncoder, attribute_columns, attribute_matrix

TABLE = pl.DataFrame(
    {
        "item_id": [1, 2, 3, 4],
        "title": ["a", "b", "c", "d"],
        "description": ["x", "x", "y", "y"],
        "categories": [["War", "Drama"], ["War"], [], None],
        "brand": ["one", "one", "two", None],
        "price": [1.0, 2.0, 3.0, None],
        "stock": [1, 2, 1, 2],
        "constant": [1.5, 1.5, 1.5, 1.5],
    }
)


def test_columns_are_named_and_valued_as_documented() -> None:
    columns = attribute_columns(TABLE)
    assert columns.columns == ["categories=War", "brand=one", "price", "stock=1", "stock=2"]
    assert columns["categories=War"].to_list() == [1, 1, 0, 0]
    assert columns["brand=one"].to_list() == [1, 1, 0, 0]
    assert columns["price"].to_list() == [-1, 0, 1, 0]


def test_matrix_is_finite_float32_whatever_is_missing() -> None:
    matrix = attribute_matrix(TABLE)
    assert matrix.shape == (4, 5)
    assert matrix.dtype == np.dtype(np.float32)
    assert np.isfinite(matrix).all()


def test_table_without_attributes_has_no_columns() -> None:
    assert attribute_matrix(TABLE.select("item_id", "title")).shape == (4, 0)


def test_names_are_not_attributes() -> None:
    names = [f"name {n}" for n in range(MAX_VALUES)] * 2 + ["other"]
    assert attribute_columns(pl.DataFrame({"actor": names})).width == 0


def test_outliers_are_clipped() -> None:
    assert attribute_matrix(pl.DataFrame({"price": [0.0] * 999 + [1e9]})).max() == 5


def test_a_row_that_comes_later_gets_the_features_that_it_had_in_the_table() -> None:
    encoder = AttributeEncoder.fit(TABLE)
    assert encoder.names == attribute_columns(TABLE).columns
    for row in range(TABLE.height):
        assert np.array_equal(encoder.matrix(TABLE[row : row + 1]), attribute_matrix(TABLE)[row : row + 1])


def test_an_encoder_is_the_same_after_it_was_stored() -> None:
    encoder = AttributeEncoder.fit(TABLE.with_columns(price=pl.Series([0.1, 0.2, 0.7, None])))
    assert AttributeEncoder.from_json(encoder.to_json()) == encoder


@pytest.mark.parametrize("stored", [b"", b"{}", b'{"attributes":[{"type":"Amount","column":"price"}]}'])
def test_what_is_no_encoder_is_refused(stored: bytes) -> None:
    with pytest.raises(BundleError, match="not a readable encoder"):
        AttributeEncoder.from_json(stored)


@pytest.mark.parametrize(
    ("column", "features"),
    [
        (pl.Series("stock", [2.0, None, float("nan")]), {"stock=2": [1, 0, 0]}),
        (pl.Series("stock", ["2", "2.5", "two"]), {"stock=2": [1, 0, 0]}),
        (pl.Series("stock", [1.5, -2.0, 3.0]), {}),
        (pl.Series("brand", ["one", "three", None]), {"brand=one": [1, 0, 0]}),
        (pl.Series("brand", [["one", "two"], [], None]), {"brand=one": [1, 0, 0]}),
        (pl.Series("brand", [1, 2, 3]), {}),
        (pl.Series("categories", ["War", None, "Peace"]), {"categories=War": [1, 0, 0]}),
        (pl.Series("categories", [[], None, []], dtype=pl.List(pl.Null)), {}),
        (pl.Series("categories", [["Peace", "War"], ["War", "War"], [None]]), {"categories=War": [1, 1, 0]}),
        (pl.Series("categories", [[["War"]], [], None]), {}),
        (pl.Series("price", ["3", "", "much"]), {"price": [1, 0, 0]}),
        (pl.Series("price", [3, 100, None]), {"price": [1, 5, 0]}),
        (pl.Series("price", [None, None, None]), {}),
        (pl.Series("price", [[3.0], [], None]), {}),
        (pl.Series("price", [{"amount": 3.0}, None, None]), {}),
        (pl.Series("weight", [1.0, 2.0, 3.0]), {}),
    ],
)
def test_cells_of_other_kinds_are_read_where_they_can_be_and_are_zeros_elsewhere(
    column: pl.Series, features: dict[str, list[float]]
) -> None:
    columns = AttributeEncoder.fit(TABLE).columns(column.to_frame())
    assert {name: values.to_list() for name, values in columns.to_dict().items() if (values != 0).any()} == features
