"""A store that lasts as long as who uses it: for experiments that are tried out, and for tests."""

import shutil
import tempfile
from pathlib import Path

from rec_engine.experiments.live_experiments import LiveExperiments

IN_MEMORY = ":memory:"
"""What is named instead of a URL to have one."""


def own_store() -> tuple[str, Path]:
    """Return the URL of a new store, and the directory that is removed at its end."""
    directory = Path(tempfile.mkdtemp(prefix="rec-engine-experiments-"))
    return f"sqlite:///{directory / 'experiments.db'}", directory


def end(live: LiveExperiments, directory: Path | None) -> None:
    """Write what is waiting, and remove a store of one's own."""
    try:
        live.close()
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
