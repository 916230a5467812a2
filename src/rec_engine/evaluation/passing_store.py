"""A store of experiments that lasts no longer than whoever made it."""

import shutil
import tempfile
from pathlib import Path

from rec_engine.experiments.live_experiments import LiveExperiments


def passing_store() -> tuple[str, Path]:
    """Return the URL of a new store, and the directory that it is in."""
    directory = Path(tempfile.mkdtemp(prefix="rec-engine-experiments-"))
    return f"sqlite:///{directory / 'experiments.db'}", directory


def end(live: LiveExperiments, directory: Path | None) -> None:
    """Write what is waiting, then end, and take a passing store with it."""
    try:
        live.close()
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
