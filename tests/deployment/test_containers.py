"""Images and the compose file, as far as they can be read without an engine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rec_engine import cli, cli_store
from rec_engine.serving.hosts import Hosts
from rec_engine.utils.config import ServingConfig, load_config

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "docker-compose.yml"


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    assert found, f"{name} comes with the extra dev"
    return found


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as compose itself reads them, monitoring included."""
    command = [tool("docker-compose"), "-f", str(COMPOSE), "--profile", "monitoring", "config", "--format", "json"]
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(read.stdout)["services"]
    return found


def test_the_dockerfile_has_nothing_that_hadolint_objects_to() -> None:
    subprocess.run([tool("hadolint"), str(DOCKERFILE)], check=True)


def test_images_are_pinned_and_run_without_rights(services: dict[str, Any]) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-", text, flags=re.M)
    assert re.search(r"^USER 10001$", text, flags=re.M)
    own = {"api", "migrate", "trainer", "secrets"}
    for name, service in services.items():
        if name not in own:
            assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z0-9]+)?$", service["image"]), name
        assert "privileged" not in service


def test_the_service_runs_on_a_read_only_file_system_and_drains_in_time(services: dict[str, Any]) -> None:
    api = services["api"]
    assert api["read_only"] is True
    assert api["cap_drop"] == ["ALL"]
    assert api["stop_grace_period"] == "30s"
    assert {each["target"] for each in api["volumes"]} == {"/models", "/state", "/compiled", "/secrets"}
    assert {name: how["condition"] for name, how in api["depends_on"].items()} == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "redis": "service_healthy",
        "trainer": "service_completed_successfully",
    }


def test_the_store_that_is_migrated_is_the_one_that_is_served(services: dict[str, Any]) -> None:
    migrate, api = services["migrate"], services["api"]
    tokens = [str(token) for token in migrate["command"]]
    assert cli.app.parse_args(tokens, exit_on_error=False, print_error=False)[0] is cli_store.migrate
    assert migrate["environment"].items() <= api["environment"].items()
    assert set(migrate["depends_on"]) == {"postgres"}


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    published = {name: port for name, service in services.items() for port in service.get("ports", [])}
    assert set(published) == {"api", "prometheus", "alertmanager", "grafana"}
    assert {port["host_ip"] for port in published.values()} == {"127.0.0.1"}


def test_no_password_stands_anywhere(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("PASS|SECRET|TOKEN", name):
                assert name.endswith("FILE"), name
                assert str(value).startswith("/secrets/")
    assert "password" not in DOCKERFILE.read_text(encoding="utf-8").lower()


def test_secrets_are_made_once_and_given_to_the_service(tmp_path: Path, services: dict[str, Any]) -> None:
    [script] = services["secrets"]["command"]
    script = script.replace("$$", "$").replace("/secrets", str(tmp_path)).replace("python -c", f"{sys.executable} -c")
    for _ in range(2):
        subprocess.run(["sh", "-euc", script], check=True)
        made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
        assert set(made) == {"redis", "postgres", "grafana"}
        assert len(set(made.values())) == 3
        assert all(len(secret) == 43 for secret in made.values())
    environment = {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "REDIS_PASSWORD_FILE": str(tmp_path / "redis"),
        "PGPASSWORD_FILE": str(tmp_path / "postgres"),
    }
    command = tmp_path / "bin" / "rec-engine"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nprintf "%s %s %s" "$1" "$REDIS_PASSWORD" "$PGPASSWORD"\n', encoding="utf-8")
    command.chmod(0o755)
    run = subprocess.run(
        [str(ROOT / "docker" / "entrypoint.sh"), "serve"], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout == f"serve {made['redis']} {made['postgres']}"


def test_every_setting_of_the_compose_file_is_one(services: dict[str, Any]) -> None:
    names = {name: value for name, value in services["api"]["environment"].items() if name.startswith("REC_ENGINE_")}
    settings = load_config(ServingConfig, None, environment=names)
    assert settings.redis.host == "redis"
    assert settings.security.allow_public_without_keys
    hosts = Hosts.of(settings)
    assert [hosts.allow(name) for name in (b"api:8000", b"127.0.0.1:8000", b"localhost:8000")] == [True] * 3
    assert not hosts.allow(b"page.example:8000")
    assert settings.store.url == "postgresql://rec_engine@postgres/rec_engine"


def test_what_an_image_is_made_of_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M)
    for path in " ".join(copied).split():
        assert path in kept
        assert (ROOT / path).exists()
