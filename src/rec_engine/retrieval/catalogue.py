"""The items as they are now: those of the training, and those that came, changed or went since."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.data.dataset import ExternalId, IdMap, IntArray
from rec_engine.data.packed_texts import PackedTexts
from rec_engine.errors import DataError
from rec_engine.retrieval.categories import category_mask, category_masks, category_names
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.item_attributes import ItemAttributes
from rec_engine.retrieval.labels import Labels


@dataclass(frozen=True, slots=True)
class ItemView:
    """What people see of an item."""

    item_id: ExternalId
    title: str | None
    categories: tuple[str, ...]


class Catalogue:
    """Items by code, with free codes for those to come.

    Args:
        items: one row an item, in code order: `item_id`, `categories` and, if there are, `title` and attributes.
        capacity: codes in all; as many as there are items without it.
        labelled: attributes of which `labels` is asked.

    Attributes:
        visible: what may be shown to anybody.
        attributes: what filters read.
        category_masks: (capacity,) uint64, a bit for each of the frequent categories.
        n_items: codes that are taken.
    """

    def __init__(self, items: pl.DataFrame, capacity: int | None = None, labelled: Collection[str] = ()) -> None:
        self.n_items = items.height
        self.capacity = capacity or items.height
        self.visible = Eligible.of_mask(np.arange(self.capacity) < items.height)
        self.attributes = ItemAttributes.of(items, self.capacity)
        self._ids = IdMap(items["item_id"])
        self._titles = PackedTexts(items["title"].cast(pl.String)) if "title" in items.columns else None
        # Reading lists of texts out of a frame is slow, and each answer shows many of them.
        members = items["categories"].explode(empty_as_null=False, keep_nulls=False)
        names = members.unique().sort()
        self._category_names = names.to_list()
        self._category_labels = names.search_sorted(members).to_numpy().astype(np.int32)
        lengths = items["categories"].list.len().fill_null(0).to_numpy()
        self._category_starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._names = category_names(items["categories"])
        self.category_masks = category_masks(items["categories"], self._names, self.capacity)
        self._labels = {
            name: Labels(items[name] if name in items.columns else None, self.capacity) for name in labelled
        }
        self._changed: dict[int, ItemView] = {}
        self._code_by_new_id: dict[str, int] = {}
        self._gone_without_code: set[str] = set()

    @classmethod
    def of_categories(cls, categories: pl.Series) -> "Catalogue":
        """Return a catalogue of items of which nothing but the categories matters; their ids are their codes."""
        codes = pl.Series("item_id", np.arange(len(categories)))
        return cls(pl.DataFrame([codes, categories.alias("categories")]))

    def code(self, item_id: ExternalId) -> int:
        """Return the code of an item, -1 where it is unknown."""
        known = self._ids.code(item_id)
        return known if known >= 0 else self._code_by_new_id.get(str(item_id), -1)

    def codes_of_many(self, item_ids: Sequence[str]) -> IntArray:
        """Return (n,) int32 codes of thousands of items, -1 where one is unknown: in less time than one by one."""
        codes = self._ids.codes(item_ids)
        for place in np.flatnonzero(codes < 0).tolist():
            codes[place] = self._code_by_new_id.get(item_ids[place], -1)
        return codes

    def codes(self, item_ids: Sequence[ExternalId]) -> IntArray:
        """Return (n,) int32 codes of those of these items that are known."""
        codes = np.array([self.code(item_id) for item_id in item_ids], dtype=np.int32)
        return codes[codes >= 0]

    def view(self, code: int) -> ItemView:
        """Return what people see of an item."""
        changed = self._changed.get(code)
        if changed is not None:
            return changed
        title = None if self._titles is None else self._titles[code]
        labels = self._category_labels[self._category_starts[code] : self._category_starts[code + 1]]
        categories = tuple([self._category_names[label] for label in labels.tolist()])
        return ItemView(self._ids[code], title, categories)

    def name(self, code: int) -> str:
        """Return the title of an item, its id where it has none."""
        changed = self._changed.get(code)
        title = changed.title if changed else self._titles and self._titles[code]
        return str(title or (changed.item_id if changed else self._ids[code]))

    def title(self, item_id: ExternalId) -> str | None:
        """Return the title of an item, None where it has none or is unknown."""
        code = self.code(item_id)
        return None if code < 0 else self.view(code).title

    @property
    def changed(self) -> Mapping[int, ItemView]:
        """Items by code that are not as the table has them, or not in it."""
        return self._changed

    @property
    def category_names(self) -> list[str]:
        """All categories of the table, by name."""
        return self._category_names

    def labels(self, attribute: str) -> IntArray:
        """Return (capacity,) int32: equal for items that share an attribute's value, or first category; -1 for none.

        Args:
            attribute: one of those that were named at the beginning; where no item has it, nobody shares anything.
        """
        return self._labels[attribute].by_item

    def check(self, values_by_id: Mapping[str, Mapping[str, object]]) -> None:
        """Find out whether these items could be put, all of them together, beside what is there now.

        Raises:
            DataError: as `put`.
        """
        self._check_room(sum(self._needs_room(item_id) for item_id in values_by_id))
        self.attributes.check(list(values_by_id.values()))

    def put(self, item_id: str, values: Mapping[str, object], *, is_visible: bool) -> int:
        """Return the code of an item that is new, or is from now on as `values` say.

        Args:
            item_id: as text.
            values: `title`, `categories` and attributes; what is left out is null from now on.
            is_visible: whether it may be shown.

        Raises:
            DataError: if a value is of another type than its attribute, or no code is free; nothing has changed then.
        """
        code = self.code(item_id)
        is_new = code < 0
        self._check_room(int(self._needs_room(item_id)))
        code = self.n_items if is_new else code
        typed = self._ids.typed(item_id)
        title, categories = values.get("title"), values.get("categories")
        names = tuple(map(str, categories)) if isinstance(categories, list | tuple) else ()
        self.attributes.put(code, {**values, "item_id": typed})
        self._changed[code] = ItemView(typed, None if title is None else str(title), names)
        self.category_masks[code] = category_mask(names, self._names)
        for name, labels in self._labels.items():
            labels.put(code, values.get(name))
        if is_new:  # last: an item whose code is taken has all the rest
            self._code_by_new_id[item_id] = code
            self._gone_without_code.discard(item_id)
            self.n_items += 1
        self._show(code, is_visible=is_visible)
        return code

    def clear(self, item_ids: Collection[str]) -> None:
        """Let these items have no attributes for the moment, so that it does not matter in which order they are put."""
        for code in map(self.code, item_ids):
            if code >= 0:
                self.attributes.clear(code)

    def remove(self, item_id: str) -> None:
        """Let an item be shown to nobody and have no attributes; its code stays its own."""
        if (code := self.code(item_id)) >= 0:
            self.attributes.clear(code)
            self._show(code, is_visible=False)
        else:
            self._gone_without_code.add(item_id)

    def _needs_room(self, item_id: str) -> bool:
        return self.code(item_id) < 0 and item_id not in self._gone_without_code

    def _check_room(self, n_new: int) -> None:
        # Items that went before they had a code count too: whether there is room depends on the log, not on a restart.
        if self.n_items + len(self._gone_without_code) + n_new > self.capacity:
            raise DataError(f"there is no room for more than {self.capacity:,} items", hint="train again")

    def _show(self, code: int, *, is_visible: bool) -> None:
        one = np.array([code], dtype=np.int32)
        shown = self.visible.union(Eligible.of_codes(one, self.capacity)) if is_visible else self.visible.without(one)
        self.visible = shown.counted()
