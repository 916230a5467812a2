"""Categories as numbers: how much of an item each of the frequent ones is."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from rec_engine.data.dataset import FloatArray

MAX_CATEGORIES = 64


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


def category_row(categories: Sequence[str], names: Sequence[str]) -> FloatArray:
    """Return (n_names,) float32, the row of one item in `category_matrix`."""
    row = np.array([name in categories for name in names], dtype=np.float32)
    return row / max(1.0, float(row.sum()))
