"""Users by their attributes, in the language that filters of items are written in."""

from functools import cached_property

import numpy as np
import polars as pl

from rec_engine.retrieval.item_attributes import ItemAttributes
from rec_engine.retrieval.predicates import Predicate


class Segments:
    """Which users a predicate is true of.

    The first question takes time and memory that grow with the users: their attributes are kept as those of items are.

    Args:
        users: one row a user, in code order; `user_id` is no attribute.
    """

    def __init__(self, users: pl.DataFrame) -> None:
        self._users = users.drop("user_id")

    def has(self, user_code: int, predicate: Predicate) -> bool:
        """Return whether a user is one of these; COLD has no attributes, as if all of them were null.

        Raises:
            NotFoundError: if there is no such attribute.
            DataError: if a value or a comparison does not fit the attribute's type.
        """
        # A code of -1 reads the last row, which is nobody's.
        place = np.array([user_code % (self._users.height + 1)], dtype=np.int32)
        return bool(self._attributes.matching(predicate).keeps(place)[0])

    @cached_property
    def _attributes(self) -> ItemAttributes:
        nobody = pl.DataFrame({name: [None] for name in self._users.columns}, schema=self._users.schema)
        return ItemAttributes.of_others(pl.concat([self._users, nobody]))
