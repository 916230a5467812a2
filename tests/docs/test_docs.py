"""Documentation that cannot drift: examples run, the reference is what the code says, links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rec_engine import cli

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page: Path, tmp_path: Path) -> None:
    for code in blocks(page, "python"):
        if ADDRESS in code:  # it asks a service: test_guides.py
            continue
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def commands() -> list[str]:
    pieces = [
        block.replace("\\\n", " ") for page in PAGES for block in [*blocks(page, "bash"), *blocks(page, "console")]
    ]
    # What follows a pipe or an ampersand is no flag of ours.
    lines = [re.split(r"#| [|&]", line)[0] for block in pieces for line in block.splitlines()]
    begins = re.compile(r'\s*([A-Z_]+=(\S+|"[^"]*") +)*rec-engine ')
    return sorted({line.strip() for line in lines if begins.match(line)})


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_docs_have_flags_that_exist(command: str) -> None:
    tokens = command.split("rec-engine ", 1)[1].split()
    _, bound, _ = cli.app.parse_args(tokens, exit_on_error=False, print_error=False)[:3]
    assert bound is not None


def test_make_targets_of_the_docs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        target for page in PAGES for block in blocks(page, "bash") for target in re.findall(r"^make (\w+)", block, re.M)
    }
    assert named
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in named)
