"""Categories as numbers: how much of an item each of the frequent ones is."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from rec_engine.data.dataset import FloatArray, MaskArray

MAX_CATEGORIES = 64
"""So many fit into the bits of a word."""


def category_names(categories: pl.Series) -> list[str]:
    """Return the MAX_CATEGORIES most frequent names, the columns of `category_matrix`."""
    counted = categories.explode().drop_nulls().alias("name").value_counts()
    names: list[str] = counted.sort(["count", "name"], descending=[True, False])["name"].head(MAX_CATEGORIES).to_list()
    return names


def category_matrix(categories: pl.Series, names: Sequence[str], n_rows: int) -> FloatArray:
    """Return (n_rows, n_names) float32, rows summing to 1 or 0; those behind the items are zeros."""
    pairs = pl.DataFrame({"row": np.arange(len(categories)), "name": categories}).explode("name").drop_nulls()
    columns = pl.DataFrame({"name": names, "column": np.arange(len(names))}, schema_overrides={"name": pl.String})
    found = pairs.join(columns, on="name")
    matrix = np.zeros((n_rows, len(names)), dtype=np.float32)
    matrix[found["row"].to_numpy(), found["column"].to_numpy()] = 1
    matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return matrix


def category_masks(categories: pl.Series, names: Sequence[str], n_rows: int) -> MaskArray:
    """Return (n_rows,) uint64: bit c is set where a row has the category names[c]; rows behind the items have none."""
    rows = np.repeat(np.arange(len(categories)), categories.list.len().fill_null(0).to_numpy())
    members = categories.explode(empty_as_null=False, keep_nulls=False)
    columns = members.replace_strict(names, list(range(len(names))), default=-1, return_dtype=pl.Int64).to_numpy()
    masks = np.zeros(n_rows, dtype=np.uint64)
    is_named = columns >= 0
    np.bitwise_or.at(masks, rows[is_named], np.uint64(1) << columns[is_named].astype(np.uint64))
    return masks


def category_mask(categories: Sequence[str], names: Sequence[str]) -> int:
    """Return the word of one item in `category_masks`."""
    return sum(1 << column for column, name in enumerate(names) if name in categories)
