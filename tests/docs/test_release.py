"""Workflows and issue forms are what GitHub reads; actions have versions; a release has notes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from script_files import load_script

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = [path for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]


@pytest.mark.parametrize(
    ("schema", "paths"), [("github-workflows", WORKFLOWS), ("github-issue-forms", FORMS)], ids=["workflows", "forms"]
)
def test_github_reads_them(schema: str, paths: list[Path]) -> None:
    assert len(paths) == 2
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actions_have_a_version() -> None:
    used = [line for path in WORKFLOWS for line in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", action)] == []


def test_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    script = load_script("scripts/release_notes.py")
    changelog = (
        "# Changelog\n\n## 0.3.0 (unreleased)\n\nMore.\n\n## 0.2.0 (2026-01-02)\n\nRules.\n\n## 0.1.0\n\nThe trunk.\n"
    )
    assert script.notes("0.2.0", changelog) == "Rules.\n"
    with pytest.raises(ValueError, match="still called unreleased"):
        script.notes("0.3.0", changelog)
    with pytest.raises(ValueError, match=r"no section 0\.4\.0"):
        script.notes("0.4.0", changelog)
    assert script.CHANGELOG.read_text(encoding="utf-8").startswith("# Changelog\n\n## ")
