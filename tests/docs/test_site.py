"""The documentation site is built without a warning and loads nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from script_files import load_script

ROOT = Path(__file__).parents[2]


def build(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=240)


def copied(root: Path) -> Path:
    """Return a copy of what the site is made of, so that nothing is built into the repository."""
    shutil.copytree(ROOT / "docs", root / "docs")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", root)
    return root


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(copied(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    pages = {
        path.relative_to(tmp_path / "site").as_posix(): path.read_text("utf-8")
        for path in (tmp_path / "site").rglob("*.html")
    }
    loaded = r'<(?:script|img|iframe|link rel="?(?:stylesheet|preload|icon)"?)[^>]*(?:src|href)="?(https?:)?//[^" >]*'
    assert {name for name, text in pages.items() if re.search(loaded, text)} == set()
    assert "doc-object" in pages["api.html"]
    assert "RecEngineClient" in pages["api.html"]


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    root = copied(tmp_path)
    (root / "docs/faq.md").write_text("# FAQ\n\n[Gone](gone.md)\n", encoding="utf-8")
    assert build(root).returncode != 0


def test_every_page_is_in_the_navigation() -> None:
    def named(entries: object) -> set[str]:
        if isinstance(entries, str):
            return {entries}
        inner = entries.values() if isinstance(entries, dict) else entries if isinstance(entries, list) else []
        return set().union(*map(named, inner))

    found = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    navigation = named(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert navigation == {name for name in found if not name.startswith("adr/0")}
    index = (ROOT / "docs/adr/index.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "docs/adr").glob("0*.md") if path.name not in index] == []


@pytest.mark.parametrize("name", ["configuration", "http_api"])
def test_generated_references_are_what_the_code_says(name: str) -> None:
    script = load_script(f"docs/{name}.py")
    written = script.page() if name == "configuration" else script.page(script.document())
    assert script.PAGE.read_text(encoding="utf-8") == written
