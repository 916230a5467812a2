"""Categories to items as plainly as can be: what the fast way is compared with."""

import difflib
from collections.abc import Sequence

import numpy as np
import polars as pl

from rec_engine.errors import NotFoundError
from rec_engine.retrieval.filters import Eligible


class CategoryIndex:
    """Category names to items.

    Args:
        categories: (n_items,) list of names of each item, in code order.
    """

    def __init__(self, categories: pl.Series) -> None:
        n_items = len(categories)
        pairs = pl.DataFrame({"code": np.arange(n_items, dtype=np.int32), "name": categories}).explode("name")
        grouped = pairs.drop_nulls().sort("name", "code").group_by("name", maintain_order=True).agg("code")
        self.names: tuple[str, ...] = tuple(grouped["name"])
        self._nothing = Eligible.of_codes(np.empty(0, dtype=np.int32), n_items)
        self._name_by_folded: dict[str, str] = {}
        self._members: dict[str, Eligible] = {}
        for name, codes in zip(self.names, grouped["code"], strict=True):
            folded = name.casefold()
            members = Eligible.of_codes(codes.to_numpy(), n_items)
            # "Drama" and "DRAMA" are one category: whoever asks for either means both.
            self._members[folded] = members.union(self._members.get(folded, self._nothing))
            self._name_by_folded.setdefault(folded, name)

    def any_of(self, names: Sequence[str]) -> Eligible:
        """Return the items of at least one of these categories; upper and lower case are the same.

        Raises:
            NotFoundError: if a category does not exist; the hint names those that are near.
        """
        united = self._nothing
        for name in names:
            members = self._members.get(name.strip().casefold())
            if members is None:
                raise self._unknown(name)
            united = united.union(members)
        return united

    def _unknown(self, name: str) -> NotFoundError:
        near = difflib.get_close_matches(name.casefold(), self._name_by_folded, n=3, cutoff=0.5)
        shown = [self._name_by_folded[folded] for folded in near] or list(self.names[:20])
        hint = f"{'did you mean' if near else 'there are'} {', '.join(shown)}" if shown else "no item has a category"
        return NotFoundError(f"there is no category {name!r}", hint=hint)
