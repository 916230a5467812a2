"""The queue in front of the log: nothing acknowledged is lost, and what is dropped is counted."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from rec_engine.data.experiment_log import ExperimentLog, Measure, Record
from rec_engine.errors import StoreError
from rec_engine.experiments import recorder as module
from rec_engine.experiments.recorder import Recorder


class UnsteadyLog(ExperimentLog):
    """A log whose database is away for a while."""

    is_away = False

    def write(self, records: Sequence[Record]) -> None:
        if self.is_away:
            raise StoreError("the database is away")
        super().write(records)


@pytest.fixture
def log(tmp_path: Path) -> UnsteadyLog:
    return UnsteadyLog(f"sqlite:///{tmp_path / 'events.db'}")


def measure(number: int) -> Measure:
    return Measure("e", "u", f"{number}", "clicks", 1.0, 1, 0)


def n_written(log: ExperimentLog) -> int:
    from rec_engine.data.experiment_tables import measure_rows

    with log._reader.connect() as connection:
        return len(connection.execute(measure_rows.select()).all())


def test_records_wait_while_the_database_is_away(log: UnsteadyLog) -> None:
    recorder = Recorder(log)
    log.is_away = True
    for number in range(10):
        recorder.add(measure(number))
    with pytest.raises(StoreError, match="away"):
        recorder.flush()
    assert recorder.n_waiting == 10
    log.is_away = False
    recorder.close()
    assert (n_written(log), recorder.n_dropped) == (10, 0)
    log.close()


def test_records_that_are_made_later_are_made_once_and_wait_like_others(log: UnsteadyLog) -> None:
    recorder, made = Recorder(log), list[int]()

    def later() -> list[Record]:
        made.append(1)
        return [measure(1), measure(2)]

    log.is_away = True
    recorder.add(measure(0))
    recorder.add_later(later)
    recorder.add_later(list)
    with pytest.raises(StoreError, match="away"):
        recorder.flush()
    assert recorder.n_waiting == 3
    log.is_away = False
    recorder.close()
    assert (n_written(log), made, recorder.n_dropped) == (3, [1], 0)
    log.close()


def test_what_cannot_be_made_costs_nothing_else(log: UnsteadyLog, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(log)

    def fails() -> list[Record]:
        raise KeyError("nobody foresaw this")

    recorder.add_later(fails)
    recorder.add_later(lambda: [measure(1)])
    recorder.flush()
    recorder.add(measure(2))
    recorder.close()
    assert (n_written(log), recorder.n_dropped) == (2, 1)
    assert "could not be made" in caplog.text
    log.close()


def test_what_there_is_no_room_for_is_dropped_and_counted(log: UnsteadyLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    recorder = Recorder(log)
    log.is_away = True
    for number in range(4):
        assert recorder.add(measure(number))
    assert recorder.add_later(lambda: [measure(4)])
    assert not any([recorder.add(measure(5)), recorder.add_later(list), recorder.add(measure(7))])
    assert recorder.n_dropped == 3
    log.is_away = False
    recorder.close()
    assert n_written(log) == 5
    log.close()


def test_several_threads_record_and_flush_at_once(log: UnsteadyLog) -> None:
    recorder = Recorder(log)

    def work(part: int) -> None:
        for number in range(500):
            recorder.add(measure(1_000 * part + number))
        recorder.flush()

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert n_written(log) == 2_000
    recorder.close()
    log.close()
