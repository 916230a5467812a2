"""Attributes of users and items as numbers: the feature columns of the towers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.errors import BundleError

MAX_VALUES = 64
"""Text columns with more distinct values than this are names rather than attributes, and are left out."""
MAX_INTEGER_VALUES = 32
"""Integers with at most so many distinct values are codes (an age group, an occupation), not amounts."""
MAX_CATEGORIES = 256
"""Most frequent members kept of a list column."""
MAX_DEVIATIONS = 5.0
"""Numbers are standardised and clipped to this many standard deviations."""


class Indicators(msgspec.Struct, frozen=True, tag=True):
    """A column whose values are features of their own: 1 where a row has the value, or has it in its list.

    Attributes:
        column: name in the table.
        values: one feature each, as text.
    """

    column: str
    values: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [f"{self.column}={value}" for value in self.values]


class Amount(msgspec.Struct, frozen=True, tag=True):
    """A column of numbers, which is one feature: how many standard deviations they are from the mean.

    Attributes:
        column: name in the table and of the feature.
        mean: of the table it was fitted on.
        deviation: above 0.
    """

    column: str
    mean: float
    deviation: float

    @property
    def names(self) -> list[str]:
        """Name of the feature."""
        return [self.column]


@dataclass(frozen=True, slots=True)
class AttributeEncoder:
    """Which features a table's attributes make, so that a row which comes later makes the same ones.

    Attributes:
        attributes: in the order of the table that it was fitted on.
    """

    attributes: tuple[Indicators | Amount, ...]

    @classmethod
    def fit(cls, table: pl.DataFrame) -> "AttributeEncoder":
        """Return the encoder of a table: lists and text become indicators, numbers are standardised.

        Ids, titles and descriptions are no attributes. Values come in descending frequency, equal ones by name.
        """
        columns = table.drop("user_id", "item_id", "title", "description", strict=False)
        found = [_attribute(column) for column in columns]
        return cls(tuple(attribute for attribute in found if attribute is not None))

    @property
    def names(self) -> list[str]:
        """Names of the features, `column=value` or `column`."""
        return [name for attribute in self.attributes for name in attribute.names]

    def columns(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return one named Float32 column a feature, one row a row of the table."""
        return pl.DataFrame(self.matrix(table), schema=self.names, orient="row")

    def matrix(self, table: pl.DataFrame) -> FloatArray:
        """Return (n_rows, n_features) float32; n_features may be 0.

        The table may be another one than that which the encoder was fitted on: a column that it lacks, a null, a value
        that was not there and a cell that does not read as the column's kind are zeros. A single value counts as a list
        of one, and 3.0 as 3.
        """
        matrix: FloatArray = np.zeros((table.height, len(self.names)), dtype=np.float32, order="F")
        first = 0
        for attribute in self.attributes:
            width = len(attribute.names)
            if attribute.column in table.columns:
                _fill(matrix[:, first : first + width], attribute, table[attribute.column])
            first += width
        return matrix

    def to_json(self) -> bytes:
        """Return the encoder as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, stored: bytes) -> "AttributeEncoder":
        """Return what `to_json` wrote.

        Raises:
            BundleError: if this is not an encoder's JSON.
        """
        try:
            return msgspec.json.decode(stored, type=cls)
        except msgspec.DecodeError as error:
            raise BundleError(f"not a readable encoder of attributes: {error}", hint="train again") from None


def attribute_columns(table: pl.DataFrame) -> pl.DataFrame:
    """Return the named features of a table by its own encoder."""
    return AttributeEncoder.fit(table).columns(table)


def attribute_matrix(table: pl.DataFrame) -> FloatArray:
    """Return (n_rows, n_features) float32, the features of a table by its own encoder; n_features may be 0."""
    return AttributeEncoder.fit(table).matrix(table)


def _attribute(column: pl.Series) -> Indicators | Amount | None:
    """Return what features a column makes, None for one that tells nothing apart or that is full of names."""
    if column.dtype == pl.List(pl.String):
        return _indicators(column.name, _frequent(column.explode())[:MAX_CATEGORIES])
    if column.dtype in (pl.Boolean, pl.String) or _is_code(column):
        values = column.cast(pl.String)
        return _indicators(column.name, _frequent(values) if values.n_unique() <= MAX_VALUES else [])
    return _amount(column) if column.dtype.is_numeric() else None


def _is_code(column: pl.Series) -> bool:
    return column.dtype.is_integer() and column.n_unique() <= MAX_INTEGER_VALUES


def _frequent(values: pl.Series) -> list[str]:
    """Return the values that occur more than once, the most frequent first, equal ones by name."""
    counted = values.drop_nulls().alias("value").value_counts().filter(pl.col("count") > 1)
    names: list[str] = counted.sort(["count", "value"], descending=[True, False])["value"].to_list()
    return names


def _indicators(column: str, values: Sequence[str]) -> Indicators | None:
    return Indicators(column, tuple(values)) if values else None


def _amount(column: pl.Series) -> Amount | None:
    numbers = column.cast(pl.Float64)
    mean, deviation = numbers.mean(), numbers.std()
    if not isinstance(mean, float) or not isinstance(deviation, float):
        return None
    return Amount(column.name, mean, deviation) if math.isfinite(deviation) and deviation > 0 else None


def _fill(features: FloatArray, attribute: Indicators | Amount, column: pl.Series) -> None:
    """Write an attribute's features, (n_rows, its width), which are zeros so far."""
    if isinstance(attribute, Amount):
        features[:, 0] = _deviations(attribute, column)
    else:
        rows, places = _found(attribute.values, column)
        features[rows, places] = 1


def _deviations(attribute: Amount, column: pl.Series) -> FloatArray:
    """Return (n_rows,) float32."""
    is_readable = column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.String)
    numbers = (
        column.cast(pl.Float64, strict=False)
        if is_readable
        else pl.repeat(None, len(column), dtype=pl.Float64, eager=True)
    )
    scaled = ((numbers - attribute.mean) / attribute.deviation).clip(-MAX_DEVIATIONS, MAX_DEVIATIONS)
    deviations: FloatArray = scaled.fill_null(0.0).fill_nan(0.0).cast(pl.Float32).to_numpy()
    return deviations


def _found(values: Sequence[str], column: pl.Series) -> tuple[LongArray, IntArray]:
    """Return the row of each cell or member that is one of the values, and that value's place."""
    cells = pl.DataFrame({"row": np.arange(len(column)), "cell": column})
    cells = cells.explode("cell") if column.dtype == pl.List else cells
    if cells["cell"].dtype.is_nested():
        return np.empty(0, np.int64), np.empty(0, np.int32)
    known = cells.select("row", place=_as_text(cells["cell"]).cast(pl.Enum(values), strict=False).to_physical())
    known = known.drop_nulls()
    return known["row"].to_numpy(), known["place"].cast(pl.Int32).to_numpy()


def _as_text(cells: pl.Series) -> pl.Series:
    """Return the cells as text; a column of integers with a null may come as floats, and is meant as integers."""
    if not cells.dtype.is_float():
        return cells.cast(pl.String)
    integers = cells.cast(pl.Int64, strict=False)
    return integers.set(integers.cast(pl.Float64) != cells, None).cast(pl.String)
