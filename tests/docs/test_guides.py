"""Every command and example of the guides runs as it stands, each page in its order, against a real service."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port, served

DOCS = Path(__file__).parents[2] / "docs"
OF_A_SERVICE = [
    "serving.md",
    "dashboard.md",
    "python-client.md",
    "rules.md",
    "filters.md",
    "cold-start.md",
    "monitoring.md",
]
OF_A_SHELL = ["own-data.md"]
ADDRESS = "http://127.0.0.1:8000"


def steps(page: str) -> list[tuple[str, str]]:
    """Return the language and text of each step of a page; a block of curl commands has a step for each."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = []
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", text, flags=re.S):
        parts = re.split(r"\n(?=curl)", block.strip()) if language == "bash" else [block]
        found += [(language, part) for part in parts]
    return found


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{command[-1]}\n{done.stdout[-2_000:]}\n{done.stderr[-2_000:]}")


@pytest.fixture(scope="module")
def url(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service of the small world answers."""
    with served(model_dir, tmp_path_factory.mktemp("log") / "events.db", 1) as (url, _):
        yield url


@pytest.mark.parametrize("page", OF_A_SERVICE)
def test_a_guide_to_the_service_runs_as_it_stands(page: str, url: str, tmp_path: Path) -> None:
    found = steps(page)
    assert found
    for language, text in found:
        told = text.replace(ADDRESS, url)
        shell = ["bash", "-o", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        run([*shell, told], tmp_path)


@pytest.mark.parametrize("page", OF_A_SHELL)
def test_a_guide_to_the_command_line_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    program = tmp_path / "bin/rec-engine"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rec_engine "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    text = "\n".join(text for _, text in steps(page))
    text = re.sub(r"(--port |127\.0\.0\.1:)8000", rf"\g<1>{free_port()}", text)
    # The small world has no text worth a transformer.
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "REC_ENGINE_TEXT__ENCODER": "none"}
    run(["bash", "-euo", "pipefail", "-c", text], tmp_path, environment)
