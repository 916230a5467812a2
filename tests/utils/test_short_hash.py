"""Whoever computes it, it is SHA-256: users keep their arms."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from rec_engine.utils.short_hash import sha256


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_it_is_what_hashlib_says(first: bytes, then: bytes) -> None:
    assert sha256(first).digest() == hashlib.sha256(first).digest()
    begun = sha256(first)
    gone_on = begun.copy()
    gone_on.update(then)
    assert gone_on.digest() == hashlib.sha256(first + then).digest()
    assert begun.digest() == hashlib.sha256(first).digest()
