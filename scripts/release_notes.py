"""Prints what CHANGELOG.md says of a version: `python scripts/release_notes.py 0.2.0`."""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(version: str, changelog: str) -> str:
    """Return the section of a version without its heading.

    Raises:
        ValueError: if there is none, or it is still called unreleased.
    """
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    for section in sections:
        heading, _, body = section.partition("\n")
        if heading.split()[0] == version:
            if "unreleased" in heading.lower():
                raise ValueError(f"CHANGELOG.md: {version} is still called unreleased; give it its date")
            return body.strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no section {version}")


if __name__ == "__main__":
    sys.stdout.write(notes(sys.argv[1], CHANGELOG.read_text(encoding="utf-8")))
