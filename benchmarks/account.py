"""What every benchmark says of itself: the machine it ran on, and the code."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def machine(libraries: Iterable[str]) -> str:
    """Return what the figures are measured on, and with which versions of these libraries."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    threads = f"OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}"
    of_machine = f"{os.cpu_count()} cores, {cpu.partition(': ')[2]}, load {os.getloadavg()[0]:.1f}, {threads}"
    versions = ", ".join(f"{library} {version(library)}" for library in libraries)
    return f"{of_machine}, Python {platform.python_version()}, {versions}"


def commit() -> str:
    """Return the commit of the working tree, with a mark where it was changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
