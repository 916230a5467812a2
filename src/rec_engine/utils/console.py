"""What people read on a terminal, letter by letter: an id that looks like markup or an emoji code stays what it is."""

from rich.console import Console, RenderableType

TABLE_WIDTH = 120


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print a text; its lines are broken where it breaks them, however narrow the terminal is."""
    _console(to_stderr=to_stderr).print(text, soft_wrap=True)


def show(table: RenderableType) -> None:
    """Print a table, 120 characters wide at least."""
    console = _console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)


def _console(*, to_stderr: bool = False) -> Console:
    return Console(stderr=to_stderr, highlight=False, markup=False, emoji=False)
