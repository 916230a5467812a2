"""Work beside the requests goes on, whatever happens to it."""

import logging
import threading
import time

import pytest

from rec_engine.utils.background import BackgroundLoop, Retry


def test_an_error_that_nobody_foresaw_is_logged_and_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[logging.LogRecord] = []
    monkeypatch.setattr("rec_engine.utils.background.logger.handle", told.append)
    monkeypatch.setattr("rec_engine.utils.background.PAUSE_SECONDS", 0.01)
    turns, is_done = [0], threading.Event()

    def step() -> float:
        turns[0] += 1
        if turns[0] < 3:
            raise ZeroDivisionError("nobody foresaw it")
        is_done.set()
        return 0.01

    loop = BackgroundLoop("worker", step)
    loop.start()
    assert is_done.wait(60)
    loop.close()
    assert [record.getMessage() for record in told] == ["worker failed; it goes on in 0 seconds"] * 2
    assert [str(record.exc_info[1]) for record in told if record.exc_info] == ["nobody foresaw it"] * 2


def test_a_closed_loop_does_nothing_more() -> None:
    turns: list[float] = []

    def step() -> float:
        turns.append(time.monotonic())
        return 0.0

    loop = BackgroundLoop("worker", step)
    loop.start()
    while not turns:
        time.sleep(0.001)
    loop.close()
    n_turns = len(turns)
    assert loop.is_closed
    time.sleep(0.02)
    assert len(turns) == n_turns
    BackgroundLoop("never started", step).close()


def test_what_fails_is_tried_again_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("rec_engine.utils.background.time.monotonic", lambda: now)
    retry = Retry()
    assert retry.is_due
    assert [retry.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    now += 59
    assert not retry.is_due
    now += 1
    assert retry.is_due
    retry.failed()
    retry.start()
    assert retry.is_due
    assert retry.failed() == 1
