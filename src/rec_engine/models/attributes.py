"""Attributes of users and items as numbers: the feature columns of the towers."""

import polars as pl

from rec_engine.data.dataset import FloatArray

MAX_VALUES = 64
"""Text columns with more distinct values than this are names rather than attributes, and are left out."""
MAX_INTEGER_VALUES = 32
"""Integers with at most so many distinct values are codes (an age group, an occupation), not amounts."""
MAX_CATEGORIES = 256
"""Most frequent members kept of a list column."""
MAX_DEVIATIONS = 5.0
"""Numbers are standardised and clipped to this many standard deviations."""


def attribute_columns(table: pl.DataFrame) -> pl.DataFrame:
    """Return one Float32 column a feature, named `column=value` or `column`, one row a row of the table.

    Lists and text become indicators, numbers are standardised, nulls are zeros everywhere. Ids, titles and descriptions
    are no attributes. The columns come in the table's order, values in descending frequency, equal ones by name.
    """
    attributes = table.drop("user_id", "item_id", "title", "description", strict=False)
    columns = [feature for column in attributes for feature in _features(column)]
    return pl.DataFrame(columns) if columns else pl.DataFrame()


def attribute_matrix(table: pl.DataFrame) -> FloatArray:
    """Return (n_rows, n_features) float32 of `attribute_columns`; n_features may be 0."""
    columns = attribute_columns(table)
    matrix: FloatArray = columns.to_numpy().astype("float32").reshape(table.height, columns.width)
    return matrix


def _features(column: pl.Series) -> list[pl.Series]:
    if column.dtype == pl.List(pl.String):
        members = column.explode()
        return [_indicator(column, value, column.list.contains(value)) for value in _frequent(members)[:MAX_CATEGORIES]]
    if column.dtype in (pl.Boolean, pl.String) or _is_code(column):
        values = column.cast(pl.String)
        names = _frequent(values) if values.n_unique() <= MAX_VALUES else []
        return [_indicator(column, value, values == value) for value in names]
    return _standardised(column) if column.dtype.is_numeric() else []


def _is_code(column: pl.Series) -> bool:
    return column.dtype.is_integer() and column.n_unique() <= MAX_INTEGER_VALUES


def _frequent(values: pl.Series) -> list[str]:
    """Return the values that occur more than once, the most frequent first, equal ones by name."""
    counted = values.drop_nulls().alias("value").value_counts().filter(pl.col("count") > 1)
    names: list[str] = counted.sort(["count", "value"], descending=[True, False])["value"].to_list()
    return names


def _indicator(column: pl.Series, value: str, is_value: pl.Series) -> pl.Series:
    return is_value.fill_null(value=False).cast(pl.Float32).alias(f"{column.name}={value}")


def _standardised(column: pl.Series) -> list[pl.Series]:
    numbers = column.cast(pl.Float64)
    deviation = numbers.std()
    if not isinstance(deviation, float) or deviation == 0:
        return []
    scaled = ((numbers - numbers.mean()) / deviation).clip(-MAX_DEVIATIONS, MAX_DEVIATIONS)
    return [scaled.fill_null(0.0).fill_nan(0.0).cast(pl.Float32)]
