"""Log lines: short for people, JSON for machines. Everything goes to stderr; stdout belongs to results."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console
from rich.logging import RichHandler

ROOT = "rec_engine"


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


def stderr_console() -> Console:
    """Return the console for progress bars: they show on a terminal only."""
    return Console(stderr=True)


def _handler(style: str) -> logging.Handler:
    if style == "auto" and sys.stderr.isatty():
        return RichHandler(console=stderr_console(), show_path=False, markup=False)
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
