"""Log lines: short for people, JSON for machines. Everything goes to stderr; stdout belongs to results."""

import json
import logging
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import track

ROOT, SERVER = "rec_engine", "uvicorn"
request_id_of_context: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that is being handled; every line that is logged meanwhile names it."""

Row = TypeVar("Row")


def configure_logging(level: str = "INFO", style: Literal["auto", "plain", "json"] = "auto") -> None:
    """Send the log lines of the package and of the server below it to stderr, each with the request that it is about.

    Calling it again replaces what was set before.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        style: `auto` colours lines on a terminal and writes plain ones elsewhere; `json` writes an object a line.
    """
    handler = _handler(style)
    for name, least in ((ROOT, level), (SERVER, "ERROR" if level == "ERROR" else "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(least)
        logger.propagate = False


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
        rich = RichHandler(console=Console(stderr=True), show_path=False, markup=False)
        rich.setFormatter(_PlainFormatter("%(message)s"))
        return rich
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _PlainFormatter("%(levelname)s %(message)s"))
    return handler


class _PlainFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        request_id = request_id_of_context.get()
        line = super().formatMessage(record)
        return f"{line} (request {request_id})" if request_id else line


class _JsonFormatter(logging.Formatter):
    """An object a line; a record's `fields`, given as `extra`, are members of their own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if request_id := request_id_of_context.get():
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
