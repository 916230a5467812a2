"""Every command of the page on the life of the data runs as it stands, one after the other."""

import re
import subprocess
import sys
import time
from pathlib import Path

from rec_engine.data.events import Event, EventStore

PAGE = Path(__file__).parents[2] / "docs" / "data-life.md"


def test_the_commands_of_the_page_run_as_they_stand(tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'state' / 'events.db'}")
    store.write([Event("e-1", "ann", "tea", "click", int(time.time()))])
    store.close()
    commands = [
        line
        for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
        for line in block.replace("\\\n", " ").strip().splitlines()
    ]
    assert len(commands) >= 5
    for command in commands:
        assert command.startswith("rec-engine ")
        tokens = [sys.executable, "-m", *command.replace("rec-engine", "rec_engine", 1).split()]
        done = subprocess.run(tokens, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
