"""SQLite's rows as arrays, beside what SQLite itself makes of them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rec_engine.data import experiment_totals, sqlite_reading
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.experiment_log import ExperimentLog, Exposure, Measure
from rec_engine.data.experiment_totals import ExperimentTotals, Selection, Summed
from rec_engine.data.sqlite_library import sqlite_library
from rec_engine.data.sqlite_reading import rows_of, sums_by_user
from rec_engine.errors import StoreError

RECORDED = [Summed(name, name) for name in ("click", "clicks", "revenue", "é")]
LOGGED = [Summed("clicks", "click", is_count=True), Summed("bought", "purchase", is_count=True)]
LOGGED += [Summed("revenue", "purchase")]
SELECTIONS = {
    "recorded": Selection("e", 1_000, recorded=RECORDED),
    "window": Selection("e", 900, window_seconds=60, recorded=RECORDED),
    "no past": Selection("e", 1_000, has_before=False, recorded=RECORDED[1:2]),
    "phase": Selection("e", 1_000, recorded=RECORDED, phase=1),
    "service": Selection("e", 1_000, recorded=RECORDED[:1], logged=LOGGED, shown="impressions"),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of users with ids of all lengths, of whom some met two arms and some did nothing."""
    url = f"sqlite:///{tmp_path_factory.mktemp('log') / 'events.db'}"
    rng = np.random.default_rng(3)
    users = [*map(str, range(60)), "o'hara", "a b", "\x01", "日本", "é" * 128, "x" * 256]
    at = dict(zip(users, rng.integers(1, 1_000, len(users)).tolist(), strict=True))
    log, store = ExperimentLog(url), EventStore(url)
    exposed = [Exposure("e", user, "control", at[user] % 2, at[user], 0.5, 0) for user in users]
    log.write(exposed + [Exposure("e", user, "treatment", 1, at[user] + 20, 0.5, 0) for user in users[::5]])
    names = ["click", "clicks", "clicksx", "revenue", "é", "other", "impressions"]
    records, events, shown = [], [], []
    for number, user in enumerate(rng.choice(["stranger", *users[3:]], 1_500).tolist()):
        moment, name = int(rng.integers(1, 1_100)), names[int(rng.integers(len(names)))]
        records.append(Measure("e", user, f"{number}", name, float(rng.normal(0, 100)), moment, 0))
        kind, value = (("click", None), ("purchase", float(rng.exponential())), ("view", None))[number % 3]
        events.append(Event(f"{number}", user, "1", kind, moment, value))
        shown.append(Impression(f"r{number}", user, moment, "v1", f"[{', '.join(['[1]'] * (number % 4))}]", 0))
    records.append(Measure("another experiment", users[5], "1", "clicks", 1e6, at[users[5]], 0))
    log.write(records)
    store.write([*events, *shown])
    log.close()
    store.close()
    return url


def summed(url: str, selection: Selection) -> tuple[pl.DataFrame, pl.DataFrame]:
    with closing(ExperimentTotals(url)) as totals:
        users = totals.users(selection)
        frames = [frame.unpivot(index="user_id") for frame in totals.totals(users["user_id"], selection)]
    return users, pl.concat(frames).sort("user_id", "variable", "value")


@pytest.mark.parametrize("at_once", [10_000, 7], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", SELECTIONS)
def test_sums_are_those_that_sqlite_makes_itself(
    url: str, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_reading, "AT_ONCE", at_once)
    monkeypatch.setattr(sqlite_reading, "TEXT_BYTES", 16 * at_once)  # less than some ids take
    monkeypatch.setattr(experiment_totals, "USERS_AT_ONCE", 10 * at_once)
    users, found = summed(url, SELECTIONS[name])
    monkeypatch.setattr(experiment_totals, "sqlite_library", lambda: None)
    expected_users, expected = summed(url, SELECTIONS[name])
    assert_frame_equal(users, expected_users)
    assert_frame_equal(found, expected, rel_tol=1e-12, abs_tol=1e-9)
    assert len(users) > 20
    assert found["value"].n_unique() > 20


@pytest.mark.parametrize("at_once", [10_000, 7], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", ["recorded", "window", "phase", "service"])
def test_single_values_are_those_that_sqlite_finds_itself_and_add_up_to_the_sums(
    url: str, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, selection = ("revenue" if name == "service" else "clicks"), SELECTIONS[name]
    monkeypatch.setattr(sqlite_reading, "AT_ONCE", at_once)
    monkeypatch.setattr(sqlite_reading, "TEXT_BYTES", 16 * at_once)  # less than some ids take
    with closing(ExperimentTotals(url)) as totals:
        found = pl.concat(totals.values(selection, total))
    monkeypatch.setattr(experiment_totals, "sqlite_library", lambda: None)
    with closing(ExperimentTotals(url)) as totals:
        assert_frame_equal(found, pl.concat(totals.values(selection, total)))
        frames = [
            frame.select("user_id", f"now {total}")
            for frame in totals.totals(found["user_id"], selection)
            if f"now {total}" in frame.columns
        ]
    summed = pl.concat(frames).filter(pl.col(f"now {total}") != 0).sort("user_id")
    assert_frame_equal(
        found.group_by("user_id").agg(pl.col("value").sum().alias(f"now {total}")).sort("user_id"),
        summed,
        rel_tol=1e-9,
        abs_tol=1e-9,
    )
    assert found["user_id"].n_unique() > 10


def test_the_library_is_the_one_that_python_uses() -> None:
    library = sqlite_library()
    assert library is not None
    assert library._library.sqlite3_libversion_number() == sum(
        10 ** (6 - 3 * place) * part for place, part in enumerate(sqlite3.sqlite_version_info)
    )


def test_what_sqlite_says_is_wrong_is_said(tmp_path: Path, url: str) -> None:
    path = tmp_path / "other.db"
    sqlite3.connect(path).close()
    with closing(ExperimentTotals(f"sqlite:///{path}")) as totals, pytest.raises(StoreError, match="no such table"):
        totals.users(SELECTIONS["recorded"])
    path.write_text("no database, only a text that is longer than a hundred bytes, as long as SQLite's header is" * 2)
    with closing(ExperimentTotals(f"sqlite:///{path}")) as totals, pytest.raises(StoreError, match="not a database"):
        totals.users(SELECTIONS["recorded"])


def test_an_error_on_the_way_is_no_end(url: str) -> None:
    library = sqlite_library()
    assert library is not None
    path = url.removeprefix("sqlite:///")
    text = """
        select user_id, abs(case user_id when '30' then -9223372036854775808 else 1 end), 1, 1, 1 from exposures
        order by user_id
    """
    with pytest.raises(sqlite3.OperationalError, match="integer overflow"):
        list(rows_of(library, path, text, [], n_integers=3))
    with pytest.raises(sqlite3.OperationalError, match="integer overflow"):
        list(sums_by_user(library, path, text, [], kinds=["1"]))
