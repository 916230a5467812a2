"""A time for tests of what goes by it."""

START = 1_700_000_000


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now
