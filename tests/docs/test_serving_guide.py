"""Every command of the guides to the service and to its dashboard runs as it stands."""

import re
import subprocess
from pathlib import Path

import pytest
from servers import served

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = [
    command
    for guide in ("serving.md", "dashboard.md")
    for block in re.findall(r"```bash\n(.*?)```", (DOCS / guide).read_text(encoding="utf-8"), flags=re.S)
    for command in re.split(r"\n(?=curl)", block.strip())
]


def test_the_commands_of_the_guide_run_as_they_stand(model_dir: Path, tmp_path: Path) -> None:
    assert len(COMMANDS) > 12
    with served(model_dir, tmp_path / "events.db", 1) as (url, _):
        for command in COMMANDS:
            done = subprocess.run(
                ["bash", "-c", command.replace("http://127.0.0.1:8000", url)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.fail(f"{command}\n{done.stdout}\n{done.stderr}")
