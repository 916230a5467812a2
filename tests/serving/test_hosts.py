"""A web page whose name leads to this machine is not answered by a service that needs no key."""

from pathlib import Path

import pytest
from conftest import service
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.serving.hosts import Hosts
from rec_engine.utils.config import ServingConfig

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens
KEY = {"name": "shop", "sha256": "0" * 64, "scopes": ["serve"]}
OWN = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "localhost.", "localhost.:80"]
FOREIGN = ["page.example", "page.example:8000", "127.0.0.1.page.example", "localhost.page.example", "page@localhost",
           "[::2]:8000", "10.0.0.7", "", ":8000", "localhost:80:80", "localhost/x", "[localhost]"]  # fmt: skip


def hosts(host: str = "127.0.0.1", **security: object) -> Hosts:
    return Hosts.of(ServingConfig.model_validate({"api": {"host": host}, "security": security}))


def test_who_needs_no_key_asks_this_machine_by_its_own_name() -> None:
    assert [name for name in OWN if not hosts().allow(name.encode())] == []
    assert [name for name in FOREIGN if hosts().allow(name.encode())] == []
    assert hosts("127.0.0.2").allow(b"127.0.0.2:8000")
    assert hosts("::1").allow(b"[::1]:8000")


@given(st.binary(max_size=40))
def test_whatever_a_host_is_nothing_but_a_name_of_this_machine_is_answered(host: bytes) -> None:
    names = {name.lower().encode() for name in ("localhost", "127.0.0.1", "[::1]")}
    assert not hosts().allow(host) or any(host.lower().startswith(name) for name in names)


def test_with_keys_or_on_a_public_address_any_host_is_answered() -> None:
    for found in (hosts(keys=[KEY]), hosts(EVERYWHERE, allow_public_without_keys=True), hosts(allowed_hosts=["*"])):
        assert all(found.allow(name.encode()) for name in (*OWN, *FOREIGN))


@pytest.mark.parametrize("host", ["127.0.0.1", EVERYWHERE])
def test_hosts_that_are_named_are_answered_beside_this_machines_own(host: str) -> None:
    found = hosts(host, allow_public_without_keys=True, allowed_hosts=["Shop.example", "[fd00::7]", "tea.example."])
    named = ("shop.example", "shop.example:443", "[FD00::7]:8000", "tea.example", "tea.example.:443")
    for name in (*OWN, *named):
        assert found.allow(name.encode()), name
    assert not found.allow(b"page.example")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/recommend"), ("GET", "/"), ("GET", "/health"), ("GET", "/openapi.json"), ("DELETE", "/user/ann")],
)
def test_every_route_of_the_service_refuses_a_foreign_host(
    bundle: ModelBundle, tmp_path: Path, method: str, path: str
) -> None:
    body = {"user_id": "ann"} if method == "POST" else None
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}")) as client:
        assert client.request(method, path, json=body).status_code == 200
        refused = client.request(method, path, json=body, headers={"host": "page.example:8000"})
        assert refused.status_code == 421
        assert refused.headers["content-type"] == "application/problem+json"
        assert "security.allowed_hosts" in refused.json()["hint"]
