"""Experiments in the database: versions that are only added, exposures and measures that are kept once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from rec_engine.data.events import Erasure, Event, EventStore, Impression, user_hash
from rec_engine.data.experiment_log import ExperimentLog, ExperimentVersion, Exposure, Measure, TakenLook
from rec_engine.data.experiment_totals import ExperimentTotals, Selection, Summed
from rec_engine.errors import ConflictError

CLICKS = Selection("e", until=1_000, recorded=[Summed("clicks", "clicks")])


@pytest.fixture
def log(store_url: str) -> Iterator[ExperimentLog]:
    log = ExperimentLog(store_url)
    yield log
    log.close()


def exposure(user: str, arm: str = "control", at: int = 10, known: int = 0) -> Exposure:
    return Exposure("e", user, arm, 0, at, 0.5, known)


def click(user: str, event_id: str, at: int = 20, known: int = 0) -> Measure:
    return Measure("e", user, event_id, "clicks", 1.0, at, known)


def clicks_by_user(url: str, selection: Selection = CLICKS) -> dict[str, float]:
    totals = ExperimentTotals(url)
    users = totals.users(selection)
    found = {
        user: clicks
        for frame in totals.totals(users["user_id"], selection)
        for user, clicks in frame.select("user_id", "now clicks").rows()
        if clicks
    }
    totals.close()
    return found


def version(number: int, action: str = "create") -> ExperimentVersion:
    return ExperimentVersion("e", number, 5, action, "ann", "why not", "{}")


def test_versions_are_added_and_none_is_written_twice(log: ExperimentLog) -> None:
    log.append(version(1))
    log.append(version(2, "start"))
    with pytest.raises(ConflictError, match="changed meanwhile"):
        log.append(version(2, "stop"))
    assert log.versions("e") == [version(1), version(2, "start")]
    assert log.standing() == [version(2, "start")]
    assert log.n_versions() == 2


def test_looks_are_kept_as_they_were(log: ExperimentLog) -> None:
    look = TakenLook("e", 1, 100, 2, '{"z": 1}', '{"a": 1}')
    log.add_look(look)
    with pytest.raises(ConflictError):
        log.add_look(look)
    assert log.looks("e") == [look]
    assert log.looks("other") == []


def test_the_earlier_of_two_exposures_counts_and_two_arms_are_two_rows(log: ExperimentLog) -> None:
    log.write([exposure("a", at=10), exposure("a", at=5), exposure("a", at=7)])
    log.write([exposure("b", "control", 9), exposure("b", "treatment", 8)])
    totals = ExperimentTotals(log.url)
    found = totals.users(CLICKS).rows()
    totals.close()
    assert found == [("a", "control", 0, 5, 1), ("b", "treatment", 0, 8, 2)]
    assert log.arms_met("e") == {"a": "control", "b": "treatment"}


def test_the_same_event_counts_once(log: ExperimentLog) -> None:
    log.write([exposure("a"), click("a", "1"), click("a", "1")])
    log.write([click("a", "1"), click("a", "2")])
    assert clicks_by_user(log.url) == {"a": 2.0}


def test_only_what_comes_after_the_first_exposure_counts_and_the_past_is_as_long(log: ExperimentLog) -> None:
    log.write([exposure("a", at=500), click("a", "1", at=499), click("a", "2", at=500), click("a", "3", at=1_001)])
    log.write([click("a", "4", at=1)])  # the log measures 500 seconds after, so 499 before
    assert clicks_by_user(log.url) == {"a": 1.0}
    totals = ExperimentTotals(log.url)
    (frame,) = totals.totals(totals.users(CLICKS)["user_id"], CLICKS)
    totals.close()
    assert frame["before clicks"].to_list() == [2.0]
    windowed = Selection("e", 1_000, window_seconds=100, recorded=CLICKS.recorded)
    log.write([click("a", "5", at=600), click("a", "6", at=601)])
    assert clicks_by_user(log.url, windowed) == {"a": 2.0}


def test_what_the_service_logged_is_summed_by_user(log: ExperimentLog, store: EventStore) -> None:
    log.write([exposure("a", at=100), exposure("b", at=100), exposure("quiet", at=100)])
    shown = "[[1, 0.5, 1.0, 1], [2, 0.4, 1.0, 2]]"
    store.write(
        [
            Impression("r1", "a", 100, "v1", shown, 0),
            Impression("r2", "a", 150, "v1", "[[1, 0.5, 1.0, 1]]", 0),
            Impression("r3", "b", 50, "v1", shown, 0),
            Impression("r4", "stranger", 120, "v1", shown, 0),
            Event("1", "a", "1", "click", 101),
            Event("2", "a", "1", "purchase", 102, 9.5),
            Event("3", "b", "1", "click", 99),
            Event("4", "b", "1", "purchase", 5_000, 1.0),
        ]
    )
    selection = Selection(
        "e",
        until=1_000,
        logged=[Summed("clicks", "click", is_count=True), Summed("revenue", "purchase")],
        shown="impressions",
    )
    totals = ExperimentTotals(log.url)
    frames = list(totals.totals(totals.users(selection)["user_id"], selection))
    past = list(totals.past(selection, since=0))
    spans = [frame.rows() for frame in totals.spans(pl.Series(["b", "quiet"]), selection)]
    totals.close()
    assert sorted(row for rows in spans for row in rows) == [("b", 50.0, 50.0), ("b", 99.0, 99.0)]
    found = {
        (user, name): value
        for frame in frames
        for row in frame.rows(named=True)
        for user in [row.pop("user_id")]
        for name, value in row.items()
    }
    assert {name: found[("a", f"now {name}")] for name in ("clicks", "revenue", "impressions")} == {
        "clicks": 1.0,
        "revenue": 9.5,
        "impressions": 3.0,
    }
    assert (found[("b", "now clicks")], found[("b", "before clicks")], found[("b", "before impressions")]) == (0, 1, 2)
    assert not any("quiet" in key or "stranger" in key for key in found)
    assert sum(frame["now impressions"].sum() for frame in past if "now impressions" in frame.columns) == 7


def test_an_erasure_takes_exposures_and_measures_and_a_late_record_brings_nobody_back(
    log: ExperimentLog, store: EventStore
) -> None:
    log.append(version(1))
    log.write([exposure("a"), click("a", "1"), exposure("b"), click("b", "1")])
    store.write([Erasure("a", user_hash("a"))])
    assert clicks_by_user(log.url) == {"b": 1.0}
    log.write([exposure("a"), click("a", "2")])  # made before the erasure was known
    assert log.arms_met("e") == {"b": "control"}
    log.write([exposure("a", known=log.position()), click("a", "3", known=log.position())])
    assert clicks_by_user(log.url) == {"a": 1.0, "b": 1.0}


def test_one_of_all_workers_has_the_turn_until_it_is_over(log: ExperimentLog) -> None:
    other = ExperimentLog(log.url)
    assert [each.take_turn("guard", 1_000, 270) for each in (log, other, log)] == [True, False, False]
    assert [each.take_turn("guard", 1_269, 270) for each in (log, other)] == [False, False]
    assert [each.take_turn("guard", 1_270, 270) for each in (other, log)] == [True, False]
    assert log.take_turn("something else", 1_270, 270)
    other.close()


def test_a_turn_that_was_taken_by_a_clock_far_ahead_holds_nobody_up(log: ExperimentLog) -> None:
    assert log.take_turn("guard", 2**40, 270)
    assert log.take_turn("guard", 1_000, 270)


def test_what_was_flushed_survives_the_death_of_its_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    code = """
import sys, time
from rec_engine.evaluation.ab_testing import ABTestManager
manager = ABTestManager(store=sys.argv[1])
manager.create_experiment("e", "E")
manager.start_experiment("e")
for round in range(1000):
    for user in range(100):
        manager.record_impression("e", user, event_id=f"{round}-{user}")
    manager.flush()
    print(round, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert writer.stdout is not None
    acknowledged = [int(line) for line, _ in zip(writer.stdout, range(15), strict=False)][-1]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    acknowledged = max([acknowledged, *(int(line) for line in writer.stdout)])
    writer.stdout.close()
    totals = ExperimentTotals(url)
    selection = Selection("e", until=2**40, recorded=[Summed("impressions", "impressions")])
    frames = list(totals.totals(totals.users(selection)["user_id"], selection))
    totals.close()
    assert sum(frame["now impressions"].sum() for frame in frames) >= 100 * (acknowledged + 1)
