"""Log lines go to stderr, one line each, as people or machines want them."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from rec_engine.utils.logger import ROOT, configure_logging, get_logger, with_progress


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger(ROOT)
    before = root.handlers, root.level, root.propagate
    yield
    root.handlers, root.level, root.propagate = before


def test_plain_lines_go_to_stderr_once(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    configure_logging()
    configure_logging()
    get_logger("rec_engine.test").info("indexed %d items", 3)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "INFO indexed 3 items\n")
    assert caplog.records == []  # pytest listens at the root logger, which would print the line a second time


def test_json_lines_hold_message_level_and_exception(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(style="json")
    get_logger("rec_engine.test").error("failed", exc_info=ValueError("wrong"))
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"]) == ("ERROR", "failed")
    assert "ValueError: wrong" in line["exception"]


def test_levels_below_the_wanted_one_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("WARNING")
    get_logger("rec_engine.test").info("nothing")
    assert capsys.readouterr().err == ""


def test_progress_yields_every_row_and_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        """Return what was written, without colours and line breaks."""
        return " ".join(re.sub("\x1b\\[[0-9;]*m", "", self.getvalue()).split())


def test_a_terminal_shows_time_and_brackets_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    configure_logging()
    get_logger("rec_engine.test").warning("kept [bold] as text")
    assert terminal.shown().startswith("[")
    assert terminal.shown().endswith("WARNING kept [bold] as text")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("LOUD")
