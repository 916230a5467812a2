"""Text comes out letter by letter."""

import pytest
from rich.table import Table

from rec_engine.utils.console import TABLE_WIDTH, say, show

ODD = ":boom: [bold]x[/bold] [/] 42"


def test_a_text_is_printed_letter_by_letter_and_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{ODD} " * 50)
    assert capsys.readouterr().out == f"{ODD} " * 50 + "\n"
    say(ODD, to_stderr=True)
    assert capsys.readouterr() == ("", f"{ODD}\n")


def test_a_table_is_printed_letter_by_letter_however_narrow_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=ODD)
    table.add_column(ODD, no_wrap=True)
    table.add_row(f"{ODD}{'x' * 60}")
    show(table)
    shown = capsys.readouterr().out
    assert shown.count(ODD) == 3
    assert 60 < max(map(len, shown.splitlines())) <= TABLE_WIDTH
