"""One attribute of all items, and what may be asked of it."""

import difflib
import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from rec_engine.errors import DataError
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.predicates import Range

SHOWN_NAMES = 20


class Column(ABC):
    """What the items have of one attribute.

    Args:
        name: of the attribute.
    """

    holds: ClassVar[str]
    """What its values are, for messages."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def given(self) -> Eligible:
        """Return the items that have a value."""

    @abstractmethod
    def any_of(self, values: Sequence[object]) -> Eligible:
        """Return the items that have one of these values.

        Raises:
            DataError: if a value is of a type that the attribute does not hold; so do the other comparisons.
        """

    def equals(self, value: object) -> Eligible:
        """Return the items that have this value."""
        return self.any_of((value,))

    def all_of(self, values: Sequence[object]) -> Eligible:
        """Return the items whose list has every one of these values."""
        raise self._refusal("all_of", values[0])

    def in_range(self, bounds: Range) -> Eligible:
        """Return the items whose value is within these bounds."""
        comparison, bound = next(iter(bounds.model_dump(exclude={"attribute"}).items()))
        raise self._refusal(comparison, bound)

    @abstractmethod
    def accepting(self, value: object) -> "TypedColumn":
        """Return the column that can store this value beside those there are: itself, or one of a wider type.

        Raises:
            DataError: if there is none.
        """

    @abstractmethod
    def clear(self, code: int) -> None:
        """Take an item's value."""

    def _refusal(self, comparison: str, value: object) -> DataError:
        return DataError(
            f"{comparison} {reprlib.repr(value)} does not fit the attribute {self.name!r}, which holds {self.holds}",
            hint="numbers and dates have bounds, lists have all_of, everything but a list has equals",
        )


class TypedColumn(Column):
    """A column of which it is known what it holds."""

    one: ClassVar[str]
    """What a single value is, for messages."""

    @abstractmethod
    def put(self, code: int, value: object) -> None:
        """Give an item a value, of which `accepting` has returned this column."""

    def _mismatch(self, value: object) -> DataError:
        return DataError(
            f"the attribute {self.name!r} holds {self.holds}, and {reprlib.repr(value)} is not {self.one}",
            hint=f"give {self.one}",
        )


def is_nothing(value: object) -> bool:
    """Return whether a value is as good as none: null, a number that is not finite, a list with nothing in it."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or (isinstance(value, list | tuple) and all(member is None for member in value))


def nearest(asked: str, names: Sequence[str], nothing: str) -> str:
    """Return a hint for who asked for a name that does not exist: those that are near, or else the first ones.

    Args:
        asked: what he asked for; upper and lower case are the same.
        names: ascending.
        nothing: the hint where there are no names.
    """
    name_by_folded: dict[str, str] = {}
    for name in names:
        name_by_folded.setdefault(name.casefold(), name)
    near = difflib.get_close_matches(asked.casefold(), name_by_folded, n=3, cutoff=0.5)
    shown = [name_by_folded[folded] for folded in near] or names[:SHOWN_NAMES]
    return f"{'did you mean' if near else 'there are'} {', '.join(shown)}" if shown else nothing
