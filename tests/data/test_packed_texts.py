"""Texts in one piece of memory are the texts that went in."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.data.packed_texts import PackedTexts

texts = st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=20)


@given(texts)
def test_every_text_comes_back_and_null_stays_null(given_texts: list[str | None]) -> None:
    packed = PackedTexts(pl.Series(given_texts, dtype=pl.String))
    assert [packed[place] for place in range(len(packed))] == given_texts


@given(st.lists(st.text(max_size=3), max_size=20), st.text(max_size=3))
def test_a_text_is_found_where_it_first_stands(given_texts: list[str], wanted: str) -> None:
    packed = PackedTexts(pl.Series(given_texts, dtype=pl.String))
    for text in (wanted, *given_texts):
        assert packed.find(text) == (given_texts.index(text) if text in given_texts else -1)


def test_what_is_no_unicode_is_not_found() -> None:
    assert PackedTexts(pl.Series(["a", ""])).find("\ud800") == -1
