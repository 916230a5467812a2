"""SHA-256 of short texts, where a request waits for it: CPython's own code, which hashlib leaves for OpenSSL's.

OpenSSL is faster for a megabyte. For a user's id it takes twice as long to find its way to the same few instructions
when they have been evicted from the processor's caches.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Protocol


class Digest(Protocol):
    """What hashing goes on from."""

    def update(self, data: bytes, /) -> None:
        """Go on with these bytes."""

    def digest(self) -> bytes:
        """Return the 32 bytes."""

    def copy(self) -> "Digest":
        """Return what goes on by itself."""


def _own() -> Callable[[bytes], Digest]:
    """Return CPython's SHA-256, whose module has another name from 3.12 on; OpenSSL's where it was left out."""
    for name in ("_sha2", "_sha256"):
        with suppress(ImportError):
            found: Callable[[bytes], Digest] = import_module(name).sha256
            return found
    return hashlib.sha256


sha256 = _own()
