"""What this machine gives a process: packages, disk, cores, open files."""

import os
import re
import resource
import shutil
import sys
import tempfile
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Literal

MIB = 2**20
DISK_FAULT_BYTES, DISK_WARNING_BYTES = 100 * MIB, 1024 * MIB
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?(>=|==)(?P<version>[0-9.]+)$")


def lacking_packages() -> tuple[list[str], str]:
    """Return what is missing or older than rec-engine needs, and a line on what there is."""
    described = f"Python {sys.version.split()[0]}, rec-engine {metadata.version('rec-engine')}"
    needed = [each for each in metadata.requires("rec-engine") or [] if "extra ==" not in each]
    lacking = []
    for match in filter(None, map(_REQUIREMENT.match, needed)):
        name, wanted = match["name"], match["version"]
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            lacking.append(f"{name} is not installed")
            continue
        if _numbers(found) < _numbers(wanted):
            lacking.append(f"{name} is {found}, wanted {wanted} or later")
    return lacking, f"{described}, {len(needed)} packages as it needs them"


def disk_state(directory: Path) -> tuple[Literal["ok", "warning", "fault"], str]:
    """Return whether there is room where a directory is, and how much."""
    free = shutil.disk_usage(directory).free
    message = f"{directory}: {free / MIB:,.0f} MiB are free"
    if free < DISK_FAULT_BYTES:
        return "fault", message
    return ("warning" if free < DISK_WARNING_BYTES else "ok"), message


def try_to_write(directory: Path) -> str | None:
    """Return why no file can be made in a directory; None where one can, and is gone again."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return str(error.strerror)


def n_cores() -> float:
    """Return how many cores this process may use, by its affinity and the quota of its container."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="utf-8").split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or "max"
        return cores


def open_files() -> int:
    """Return how many files a process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in takewhile(str.isdigit, version.split(".")))
