"""Who may ask for what, and how often: API keys with scopes, and token buckets."""

import hashlib
import hmac
import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from rec_engine.errors import ConfigError
from rec_engine.utils.config import ScopeName, SecuritySettings

KEY_PREFIX = "rek_"
KEY_BYTES = 32
MAX_BUCKETS = 10_000
MAKE_A_KEY = "rec-engine keys new --scope serve makes a key"

SCOPE_BY_ROUTE: Mapping[tuple[str, str], ScopeName | None] = {
    ("GET", "health"): None,
    ("GET", "ready"): None,
    ("GET", "docs"): None,
    ("GET", "openapi.json"): None,
    ("GET", "/"): None,
    ("GET", "dashboard"): None,
    ("GET", "access"): None,
    ("POST", "recommend"): "serve",
    ("GET", "similar-items"): "serve",
    ("GET", "trending"): "serve",
    ("GET", "user"): "serve",
    ("GET", "model"): "serve",
    ("GET", "models"): "serve",
    ("POST", "models"): "admin",
    ("GET", "cache"): "serve",
    ("GET", "metrics"): "serve",
    ("GET", "stats"): "serve",
    ("GET", "items"): "serve",
    ("GET", "categories"): "serve",
    ("GET", "users"): "admin",
    ("GET", "events"): "admin",
    ("GET", "impressions"): "admin",
    ("POST", "feedback"): "ingest",
    ("POST", "user"): "ingest",
    ("POST", "items"): "ingest",
    ("DELETE", "items"): "ingest",
    ("DELETE", "user"): "admin",
    ("GET", "debug"): "admin",
    ("GET", "rules"): "admin",
    ("PUT", "rules"): "admin",
    ("POST", "rules"): "admin",
    ("DELETE", "rules"): "admin",
    ("GET", "experiments"): "serve",
    ("POST", "experiments"): "admin",
    ("PUT", "experiments"): "admin",
}
"""Method and first part of the path to the scope that is needed, None for nobody's. What is not here needs admin."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that somebody holds.

    Attributes:
        name: of the holder.
        sha256: digest of the key.
        scopes: what it may do.
    """

    name: str
    sha256: bytes
    scopes: frozenset[ScopeName]

    def allows(self, scope: ScopeName) -> bool:
        """Return whether the key may do this."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of a service.

    Attributes:
        keys: all of them; none when the service is open.
    """

    keys: tuple[Key, ...] = ()

    @classmethod
    def of(cls, settings: SecuritySettings) -> "Keyring":
        """Return the configured keys.

        Raises:
            ConfigError: if two have the same name, or are the same key.
        """
        for place, entry in enumerate(settings.keys):
            for earlier in settings.keys[:place]:
                if earlier.name == entry.name or earlier.sha256 == entry.sha256:
                    raise ConfigError(
                        f"security.keys: entries {earlier.name!r} and {entry.name!r} share a name or a key",
                        hint=f"each entry has a name and a key of its own; {MAKE_A_KEY}",
                    )
        return cls(tuple(Key(each.name, bytes.fromhex(each.sha256), frozenset(each.scopes)) for each in settings.keys))

    def find(self, authorization: bytes | None, x_api_key: bytes | None) -> Key | None:
        """Return the key that a request shows as `Authorization: Bearer` or else as `X-API-Key`, None for no valid one.

        The time it takes does not depend on which key it is, or how nearly it is one.
        """
        scheme, _, token = (authorization or b"").partition(b" ")
        shown = token.strip() if scheme.lower() == b"bearer" else x_api_key
        if not shown:
            return None  # even where somebody configured the digest of nothing
        digest = hashlib.sha256(shown).digest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
        status: of the answer.
        detail: what is wrong.
        hint: what to do.
        headers: that belong to the answer.
    """

    status: int
    detail: str
    hint: str
    headers: Mapping[str, str] = field(default_factory=dict)


class RateLimit:
    """Token buckets: each holder may send so many requests a second, and after a pause a burst at once.

    Args:
        per_second: tokens that come back.
        burst: tokens that a bucket holds.
        max_buckets: holders that are remembered; whoever was not heard of longest is forgotten, which fills his bucket.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        per_second: float,
        burst: int,
        *,
        max_buckets: int = MAX_BUCKETS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._max_buckets = max_buckets
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, holder: str) -> float:
        """Return 0 and take a token; where there is none, the seconds until the next."""
        now = self._clock()
        tokens, since = self._buckets.pop(holder, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        is_admitted = tokens >= 1
        self._buckets[holder] = (tokens - is_admitted, now)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return 0.0 if is_admitted else (1 - tokens) / self._per_second

    def __len__(self) -> int:
        return len(self._buckets)


class Gate:
    """Lets requests in, or says why not.

    Args:
        settings: the `security:` section.
        clock: monotonic seconds.
    """

    def __init__(self, settings: SecuritySettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.keyring = Keyring.of(settings)
        rate = settings.requests_per_second
        self._limit = None if rate is None else RateLimit(rate, settings.burst, clock=clock)

    @property
    def has_keys(self) -> bool:
        """Whether anybody needs a key."""
        return bool(self.keyring.keys)

    def scopes(self, headers: Sequence[tuple[bytes, bytes]]) -> list[ScopeName]:
        """Return what a request with these headers (names in lower case) may do: everything where there are no keys."""
        if not self.has_keys:
            return list(get_args(ScopeName))
        key = self._key(headers)
        return [] if key is None else [scope for scope in get_args(ScopeName) if key.allows(scope)]

    def refusal(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], client_address: str
    ) -> Refusal | None:
        """Return why a request may not be answered, None where it may.

        Args:
            method: GET, POST, ...
            path: without the query.
            headers: names in lower case.
            client_address: whom the limit counts when there are no keys.
        """
        scope = needed_scope(method, path)
        if scope is None:
            return None
        holder = client_address
        if self.keyring.keys:
            key = self._key(headers)
            if key is None:
                return _NO_KEY
            if not key.allows(scope):
                return Refusal(
                    403, f"the key {key.name!r} lacks the scope {scope!r}", f"use one that has it; {MAKE_A_KEY}"
                )
            holder = key.name
        wait_seconds = 0.0 if self._limit is None else self._limit.wait_seconds(holder)
        return _too_many(wait_seconds) if wait_seconds else None

    def _key(self, headers: Sequence[tuple[bytes, bytes]]) -> Key | None:
        by_name = dict(headers)
        return self.keyring.find(by_name.get(b"authorization"), by_name.get(b"x-api-key"))


def make_key() -> tuple[str, str]:
    """Return a new key and its SHA-256 in hex, which is all that is to be kept.

    The key has 256 random bits: nobody can try them all, so a fast hash is right. Slow ones are for what people choose.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return key, hashlib.sha256(key.encode()).hexdigest()


def needed_scope(method: str, path: str) -> ScopeName | None:
    """Return the scope that a request needs, None where it needs no key."""
    asked = "GET" if method == "HEAD" else method
    part = path if path == "/" else path[1:].partition("/")[0]
    return SCOPE_BY_ROUTE.get((asked, part), "admin")


def check_address(host: str, keyring: Keyring, *, allow_public_without_keys: bool) -> None:
    """Make sure that nobody is let in from elsewhere unawares.

    Raises:
        ConfigError: if the address can be reached from other machines, there are no keys, and nobody said it is meant.
    """
    if keyring.keys or allow_public_without_keys or is_loopback(host):
        return
    raise ConfigError(
        f"api.host = {host!r}: whoever reaches this address could read, write and erase, for there are no keys",
        hint=f"{MAKE_A_KEY} for security.keys; or listen on --host 127.0.0.1; or, where a proxy or firewall keeps "
        "others out, set security.allow_public_without_keys: true",
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine itself reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _too_many(wait_seconds: float) -> Refusal:
    headers = {"Retry-After": str(math.ceil(wait_seconds))}
    return Refusal(429, f"too many requests; the next one may come in {wait_seconds:.3f} s", "send fewer", headers)


_NO_KEY = Refusal(
    401,
    "no valid key came with the request",
    f"send it as `Authorization: Bearer {KEY_PREFIX}...` or as `X-API-Key`; {MAKE_A_KEY}",
    {"WWW-Authenticate": "Bearer"},
)
