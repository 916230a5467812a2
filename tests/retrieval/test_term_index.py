"""The items of a text are known exactly after every change, and kept as sets no wider than they need to be."""

import numpy as np
import polars as pl
import pytest

from rec_engine.retrieval import filters, term_index
from rec_engine.retrieval.term_index import FEW_TERMS, TermIndex


def test_a_text_that_an_item_has_twice_is_taken_from_it_at_once() -> None:
    index = TermIndex(pl.Series([["x", "x", None], ["x"], None]), 4)
    assert index.row(0) == ("x",)
    index.put(0, ["y", "y"])
    assert index.any_of(["x"]).item_codes().tolist() == [1]
    index.put(0, [])
    assert index.any_of(["x", "y"]).item_codes().tolist() == [1]
    assert index.with_terms().item_codes().tolist() == [1]


def test_a_kept_set_grows_from_narrow_to_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (filters, term_index):
        monkeypatch.setattr(module, "NARROW", 2)
    index = TermIndex(pl.Series(["x", None, None, None]), 4)
    assert index.any_of(["x"]).codes is not None
    index.put(3, ["x"])
    narrow = index.any_of(["x"])
    assert narrow.codes is not None
    assert narrow.codes.tolist() == [0, 3]
    index.put(1, ["x"])
    assert index.any_of(["x"]).codes is None
    assert index.any_of(["x"]).item_codes().tolist() == [0, 1, 3]
    assert narrow.item_codes().tolist() == [0, 3]


def test_many_terms_are_found_as_few_are() -> None:
    rng = np.random.default_rng(0)
    texts = rng.permutation([f"item {place}" for place in range(500)])
    index = TermIndex(pl.Series(texts.tolist()), 501)
    index.put(500, ["late"])
    index.put(7, ["late"])
    asked = [*texts[:50].tolist(), "unheard of", "", "late", "zzz"]
    assert len(asked) > FEW_TERMS
    assert index.any_of(asked).item_codes().tolist() == [*range(50), 500]
    assert index.any_of([str(texts[7])]).count() == 0
