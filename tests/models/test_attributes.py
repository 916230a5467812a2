"""Tables of attributes become columns of numbers."""

import numpy as np
import polars as pl

from rec_engine.models.attributes import MAX_VALUES, attribute_columns, attribute_matrix

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
