"""Answers that are not written as a service writes them are left out, by the same rule wherever the log is read."""

import json
import logging
import sqlite3
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.data.dataset import IdMap
from rec_engine.data.events import EventStore, Impression
from rec_engine.data.impressions import load_impressions
from rec_engine.data.live_showings import LiveShowings
from rec_engine.data.log_frames import LogFrames
from rec_engine.data.showing_log import load_showings
from rec_engine.data.showings import SETTLING_SECONDS
from rec_engine.data.shown_rows import SHOWN, decoded, item_rows, rows_of
from rec_engine.errors import StoreError

NOW = 1_700_000_000
DAMAGED = [
    "",
    "[[1, 0.5",
    "null",
    '{"a": 1}',
    "[7]",
    '[[{"a": 1}]]',
    "[[1e400]]",
    '[["\\ud800"]]',
    "not JSON",
    "[null]",
]
WHOLE = [
    "[]",
    '[[5, 0.5, 1.0, 1], [null, 0.5, 1.0, 2], [], [6, "high", "?", "top"], [7, null, null, null], [8, 0.1, 0.2, 0]]',
    "[[6, 0.5], [7, 0.4]]",
]
ITEM_IDS, USER_IDS = IdMap(pl.Series("item_id", range(10))), IdMap(pl.Series("user_id", ["ann"]))


@pytest.fixture
def damaged(store: EventStore) -> EventStore:
    """A log with ten damaged answers among three."""
    texts = [*DAMAGED[:5], *WHOLE, *DAMAGED[5:]]
    store.write([Impression(f"r{n}", "ann", NOW + n, "v", text, 0) for n, text in enumerate(texts)])
    return store


def test_training_reads_what_is_whole_and_counts_the_rest(
    damaged: EventStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("rec_engine"), "propagate", True)
    found = load_impressions(damaged.url)
    assert found.n_requests == len(WHOLE)
    assert [found.request_codes.tolist(), found.item_ids.to_list(), found.positions.tolist()] == [
        [1, 2, 2], ["5", "6", "7"], [1, 1, 2],
    ]  # fmt: skip
    assert "10 answers of the log are damaged" in caplog.text


def test_the_service_goes_by_the_same_rule(damaged: EventStore) -> None:
    whole = load_showings(damaged.url, USER_IDS, ITEM_IDS, since=NOW).of_user(0)
    live = LiveShowings(ITEM_IDS.code, damaged).of_user("ann", NOW + 2 * SETTLING_SECONDS)
    assert sorted(whole.item_codes.tolist()) == sorted(live.item_codes.tolist()) == [5, 6, 7]
    assert sorted(whole.looks.tolist()) == sorted(live.looks.tolist())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_what_one_reader_takes_the_other_takes_too(answer: object) -> None:
    text = json.dumps(answer)
    frame = decoded(pl.DataFrame({"shown": [text]}))
    assert frame.schema["shown"] == SHOWN
    rows = rows_of(text)
    assert frame.height == (rows is not None)
    assert item_rows(frame).height <= len(rows or [])


def test_a_row_of_another_kind_is_an_error_that_names_the_log(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(f"sqlite:///{path}")
    store.write([Impression("r1", "ann", NOW, "v", "[]", 0)])
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE impressions SET timestamp = 'yesterday'")
    log = LogFrames(store.url)
    with pytest.raises(StoreError, match=r"events\.db: a row is not as a service writes it"):
        list(log.impressions())
    log.close()
