"""Who is let in, who is not and what they are told; and how often."""

import hashlib
import re

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rec_engine.errors import ConfigError
from rec_engine.serving.security import (
    SCOPE_BY_ROUTE,
    Gate,
    Key,
    Keyring,
    RateLimit,
    check_address,
    make_key,
    needed_scope,
)
from rec_engine.utils.config import KeySettings, ScopeName, SecuritySettings

# Made once and kept: names of tests have to be the same in every process that collects them.
SHOP, PIPE, BOSS = (f"rek_{letter * 43}" for letter in "SPB")
SHOP_DIGEST, PIPE_DIGEST, BOSS_DIGEST = (hashlib.sha256(key.encode()).hexdigest() for key in (SHOP, PIPE, BOSS))
SETTINGS = SecuritySettings(
    keys=(
        KeySettings(name="shop", sha256=SHOP_DIGEST, scopes=("serve",)),
        KeySettings(name="pipe", sha256=PIPE_DIGEST, scopes=("ingest",)),
        KeySettings(name="boss", sha256=BOSS_DIGEST, scopes=("admin",)),
    )
)


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), (b"authorization", b"Bearer " + key.encode())]


def status(gate: Gate, method: str, path: str, headers: list[tuple[bytes, bytes]], client: str = "10.0.0.1") -> int:
    refusal = gate.refusal(method, path, headers, client)
    return 200 if refusal is None else refusal.status


def test_a_new_key_is_random_and_found_by_its_digest_alone() -> None:
    keys = [make_key() for _ in range(100)]
    assert len({key for key, _ in keys}) == 100
    for key, digest in keys:
        assert re.fullmatch(r"rek_[A-Za-z0-9_-]{43}", key)
        assert hashlib.sha256(key.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "name"),
    [
        (f"Bearer {SHOP}", None, "shop"),
        (f"bearer  {SHOP} ", None, "shop"),
        (None, PIPE, "pipe"),
        (f"Bearer {SHOP}", PIPE, "shop"),
        ("Basic dXNlcjpwYXNz", PIPE, "pipe"),
        ("Bearer wrong", PIPE, None),
        (f"Bearer {SHOP[:-1]}", None, None),
        (f"Bearer {SHOP}x", None, None),
        (f"Bearer {SHOP_DIGEST}", None, None),
        (SHOP, None, None),
        ("Bearer", None, None),
        ("Bearer ", "", None),
        (None, None, None),
    ],
)
def test_a_key_is_found_in_either_header(authorization: str | None, x_api_key: str | None, name: str | None) -> None:
    headers = [None if text is None else text.encode() for text in (authorization, x_api_key)]
    found = Keyring.of(SETTINGS).find(headers[0], headers[1])
    assert (found and found.name) == name


@given(authorization=st.none() | st.binary(max_size=80), x_api_key=st.none() | st.binary(max_size=80))
def test_nothing_but_a_key_opens(authorization: bytes | None, x_api_key: bytes | None) -> None:
    assert Keyring.of(SETTINGS).find(authorization, x_api_key) is None


def test_the_digest_of_nothing_opens_to_nobody() -> None:
    entry = KeySettings(name="slip", sha256=hashlib.sha256(b"").hexdigest(), scopes=("admin",))
    keyring = Keyring.of(SecuritySettings(keys=(entry,)))
    assert [keyring.find(None, None), keyring.find(b"Bearer ", None), keyring.find(None, b"")] == [None] * 3


@pytest.mark.parametrize("settings", [{"name": "shop"}, {"sha256": SHOP_DIGEST}])
def test_names_and_keys_are_not_used_twice(settings: dict[str, str]) -> None:
    entry = KeySettings.model_validate({"name": "other", "sha256": "0" * 64, "scopes": ["serve"]} | settings)
    with pytest.raises(ConfigError, match="shop"):
        Keyring.of(SecuritySettings(keys=(*SETTINGS.keys, entry)))


@pytest.mark.parametrize(
    "wrong", [{"sha256": SHOP}, {"sha256": SHOP_DIGEST.upper()}, {"scopes": []}, {"scopes": ["root"]}, {"name": ""}]
)
def test_an_entry_that_could_never_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        KeySettings.model_validate({"name": "shop", "sha256": SHOP_DIGEST, "scopes": ["serve"]} | wrong)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/health", None),
        ("HEAD", "/ready", None),
        ("GET", "/docs/oauth2-redirect", None),
        ("POST", "/recommend", "serve"),
        ("GET", "/similar-items/health", "serve"),
        ("GET", "/user/4/profile", "serve"),
        ("GET", "/metrics", "serve"),
        ("POST", "/feedback/batch", "ingest"),
        ("POST", "/user/4/invalidate-cache", "ingest"),
        ("DELETE", "/user/4", "admin"),
        ("POST", "/health", "admin"),
        ("GET", "/healthy", "admin"),
        ("GET", "//health", "admin"),
        ("GET", "/../health", "admin"),
        ("GET", "/", None),
        ("GET", "/dashboard/app.js", None),
        ("GET", "/events", "admin"),
        ("GET", "/users", "admin"),
        ("GET", "/items", "serve"),
        ("POST", "/models/rollback", "admin"),
        ("OPTIONS", "*", "admin"),
    ],
)
def test_every_path_needs_a_scope_and_an_unknown_one_the_highest(
    method: str, path: str, scope: ScopeName | None
) -> None:
    assert needed_scope(method, path) == scope


def test_every_route_of_the_service_is_in_the_table(client: TestClient) -> None:
    paths: dict[str, dict[str, object]] = client.get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path.split("/")[1]) for path, methods in paths.items() for method in methods}
    assert ("POST", "recommend") in routes
    assert routes - SCOPE_BY_ROUTE.keys() == set()


@pytest.mark.parametrize(
    ("key", "statuses"),
    [
        (SHOP, [200, 200, 403, 403]),
        (PIPE, [200, 403, 200, 403]),
        (BOSS, [200, 200, 200, 200]),
        ("rek_wrong", [200, 401, 401, 401]),
    ],
)
def test_a_key_may_do_what_its_scopes_say(key: str, statuses: list[int]) -> None:
    gate = Gate(SETTINGS)
    asked = [("GET", "/health"), ("POST", "/recommend"), ("POST", "/feedback"), ("DELETE", "/user/4")]
    assert [status(gate, method, path, bearer(key)) for method, path in asked] == statuses


def test_without_keys_everything_is_open() -> None:
    gate = Gate(SecuritySettings())
    assert [status(gate, "DELETE", "/user/4", headers) for headers in ([], bearer("rek_wrong"))] == [200, 200]


def test_a_refusal_says_what_to_do_and_never_shows_a_key() -> None:
    gate = Gate(SETTINGS)
    unknown = gate.refusal("POST", "/recommend", bearer("rek_wrong"), "10.0.0.1")
    lacking = gate.refusal("DELETE", "/user/4", bearer(SHOP), "10.0.0.1")
    assert unknown is not None
    assert lacking is not None
    assert unknown.headers == {"WWW-Authenticate": "Bearer"}
    assert "X-API-Key" in unknown.hint
    assert "'shop' lacks the scope 'admin'" in lacking.detail
    assert not [text for text in (repr(unknown), repr(lacking)) if "rek_wrong" in text or SHOP in text]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_needs_no_keys(host: str) -> None:
    check_address(host, Keyring(), allow_public_without_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "::ffff:10.0.0.1", "example.org"])  # noqa: S104 - not bound
def test_an_open_address_needs_keys_or_a_word(host: str) -> None:
    check_address(host, Keyring.of(SETTINGS), allow_public_without_keys=False)
    check_address(host, Keyring(), allow_public_without_keys=True)
    with pytest.raises(ConfigError, match=re.escape(repr(host))) as caught:
        check_address(host, Keyring(), allow_public_without_keys=False)
    assert "keys new" in caught.value.hint
    assert "allow_public_without_keys" in caught.value.hint


def test_a_burst_is_admitted_and_then_so_many_a_second() -> None:
    now = [100.0]
    limit = RateLimit(per_second=2, burst=3, clock=lambda: now[0])
    assert [limit.wait_seconds("a") for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert limit.wait_seconds("b") == 0
    now[0] += 0.25
    assert limit.wait_seconds("a") == 0.25
    now[0] += 0.25
    assert [limit.wait_seconds("a") for _ in range(2)] == [0, 0.5]
    now[0] += 1_000
    assert [limit.wait_seconds("a") for _ in range(4)] == [0, 0, 0, 0.5]


@given(
    per_second=st.sampled_from([0.1, 1.0, 7.0, 1_000.0]),
    burst=st.integers(1, 5),
    pauses=st.lists(st.floats(0, 3), max_size=60),
)
def test_no_stretch_of_time_sees_more_than_burst_and_rate(per_second: float, burst: int, pauses: list[float]) -> None:
    now = [0.0]
    limit = RateLimit(per_second, burst, clock=lambda: now[0])
    admitted: list[float] = []
    for pause in pauses:
        now[0] += pause
        wait = limit.wait_seconds("a")
        if wait == 0:
            admitted.append(now[0])
        else:
            assert 0 < wait <= 1 / per_second
            now[0] += wait + 1e-9
            assert limit.wait_seconds("a") == 0
            admitted.append(now[0])
    for first, since in enumerate(admitted):
        for last, until in enumerate(admitted[first:], first):
            assert last - first + 1 <= burst + (until - since) * per_second + 1e-6


def test_buckets_are_bounded_and_the_longest_unheard_is_forgotten() -> None:
    limit = RateLimit(per_second=0.001, burst=1, max_buckets=3, clock=lambda: 0.0)
    for holder in ["a", "b", "c", "a", "d"]:
        limit.wait_seconds(holder)
    assert len(limit) == 3
    assert limit.wait_seconds("a") > 0
    assert limit.wait_seconds("b") == 0


def test_each_key_has_its_own_limit_wherever_it_comes_from() -> None:
    now = [0.0]
    settings = SETTINGS.model_copy(update={"requests_per_second": 0.4, "burst": 1})
    gate = Gate(settings, clock=lambda: now[0])
    assert status(gate, "POST", "/recommend", bearer(SHOP), "10.0.0.1") == 200
    assert status(gate, "POST", "/recommend", bearer(BOSS), "10.0.0.1") == 200
    refusal = gate.refusal("POST", "/recommend", bearer(SHOP), "10.0.0.2")
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (429, {"Retry-After": "3"})
    assert [status(gate, "GET", "/health", []) for _ in range(5)] == [200] * 5
    now[0] = 2.5
    assert status(gate, "POST", "/recommend", bearer(SHOP), "10.0.0.2") == 200


def test_without_keys_each_address_has_its_own_limit() -> None:
    gate = Gate(SecuritySettings(requests_per_second=1, burst=1), clock=lambda: 0.0)
    asked = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    assert [status(gate, "POST", "/recommend", [], client) for client in asked] == [200, 200, 429]


def test_an_admin_may_do_everything() -> None:
    scopes: tuple[ScopeName, ...] = ("serve", "ingest", "admin")
    assert all(Key("boss", b"", frozenset({"admin"})).allows(scope) for scope in scopes)


@pytest.mark.parametrize(
    ("headers", "scopes"),
    [
        ([], []),
        (bearer("rek_wrong"), []),
        (bearer(SHOP), ["serve"]),
        (bearer(PIPE), ["ingest"]),
        (bearer(BOSS), ["serve", "ingest", "admin"]),
    ],
    ids=["none", "wrong", "shop", "pipe", "boss"],
)
def test_a_gate_says_what_a_key_opens(headers: list[tuple[bytes, bytes]], scopes: list[ScopeName]) -> None:
    gate = Gate(SETTINGS)
    assert gate.has_keys
    assert gate.scopes(headers) == scopes
