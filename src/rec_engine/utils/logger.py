"""Log lines: short for people, JSON for machines. Everything goes to stderr; stdout belongs to results."""

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import track

ROOT = "rec_engine"

Row = TypeVar("Row")


def configure_logging(level: str = "INFO", style: Literal["auto", "plain", "json"] = "auto") -> None:
    """Send the package's log lines to stderr; calling it again replaces what was set before.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        style: `auto` colours lines on a terminal and writes plain ones elsewhere; `json` writes an object a line.
    """
    root = logging.getLogger(ROOT)
    root.handlers = [_handler(style)]
    root.setLevel(level)
    root.propagate = False


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module of this package."""
    return logging.getLogger(name)


def with_progress(rows: Iterable[Row], description: str, total: int | None = None) -> Iterable[Row]:
    """Yield the rows behind a progress bar on stderr that goes away at the end; without a terminal there is no bar.

    Args:
        rows: anything that can be gone through.
        description: stands before the bar.
        total: number of rows, where `rows` has no length.
    """
    console = Console(stderr=True)
    return track(rows, description, total, console=console, transient=True, disable=not console.is_terminal)


def _handler(style: str) -> logging.Handler:
    if style == "auto" and sys.stderr.isatty():
        return RichHandler(console=Console(stderr=True), show_path=False, markup=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else logging.Formatter("%(levelname)s %(message)s"))
    return handler


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
