"""What users chose of lists that two arms filled is credited to whose pick it was, once a list."""

import json

import numpy as np
import pytest

from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.experiment_lists import credited_lists
from rec_engine.data.experiment_log import ExperimentLog, Exposure
from rec_engine.data.impressions import load_impressions
from rec_engine.experiments.definition import INTERLEAVED

NOW = 1_700_000_000
TEAMS = ("exp/one", "exp/two")


def answer(name: str, picks: dict[str, str | None], at: int = NOW, user: str = "ann") -> Impression:
    shown = [[item, 0.5, None, place, *([team] if team else [])] for place, (item, team) in enumerate(picks.items(), 1)]
    return Impression(name, user, at, "v1", json.dumps(shown), 0)


def event(name: str, request: str | None, item: str, at: int = NOW, kind: str = "click", user: str = "ann") -> Event:
    return Event(name, user, item, kind, at, request_id=request)


def expose(url: str, *users: str, experiment_id: str = "exp") -> None:
    log = ExperimentLog(url)
    log.write([Exposure(experiment_id, user, INTERLEAVED, 0, NOW, 1.0, 0) for user in users])
    log.close()


def credits_of(store: EventStore, until: int = NOW + 99, window_seconds: int | None = None) -> list[tuple[object, ...]]:
    return credited_lists(store.url, "exp", TEAMS, until, window_seconds)[1].rows()


def test_lists_that_are_damaged_are_left_out(store: EventStore) -> None:
    expose(store.url, "ann")
    store.write([answer("r1", {"7": TEAMS[0]}), Impression("r2", "ann", NOW, "v1", f'[["7", 0, 1, 1, "{TEAMS[0]}"', 0)])
    store.write([event("e1", "r1", "7"), event("e2", "r2", "7")])
    assert credits_of(store) == [("ann", 1, 0)]


def test_choices_are_credited_to_the_team_of_the_list_that_they_name(store: EventStore) -> None:
    expose(store.url, "ann", "Bob")
    store.write(
        [
            answer("r1", {"7": TEAMS[0], "8": TEAMS[1], "9": TEAMS[1], "p": None}),
            answer("r2", {"7": TEAMS[1], "8": TEAMS[0]}, NOW + 5),
            answer("r3", {"7": TEAMS[0]}, user="Bob"),
            answer("r4", {"7": None}),  # an answer without teams
            answer("r5", {"7": "exp2/one"}),
            answer("r6", {"7": TEAMS[0]}, user="nobody who met it"),
        ]
    )
    store.write(
        [
            event("e1", "r1", "8"),
            event("e2", "r1", "8", kind="purchase"),  # the same item again counts no more
            event("e3", "r1", "9"),
            event("e4", "r1", "p"),
            event("e5", "r2", "7", NOW + 6),
            event("e6", "r1", "7", kind="view"),
            event("e7", None, "7"),
            event("e8", "r3", "7"),  # of another user's list
            event("e9", "r6", "7", user="nobody who met it"),
        ]
    )
    assert sorted(credits_of(store)) == [("Bob", 0, 0), ("ann", 0, 1), ("ann", 0, 2)]
    assert credited_lists(store.url, "exp", TEAMS, NOW + 99)[0] == 2


def test_nothing_after_the_end_or_the_users_window_counts(store: EventStore) -> None:
    expose(store.url, "ann")
    store.write([answer("r1", {"7": TEAMS[0]}), answer("r2", {"7": TEAMS[1]}, NOW + 50)])
    store.write([event("e1", "r1", "7", NOW + 40), event("e2", "r2", "7", NOW + 60)])
    assert sorted(credits_of(store)) == [("ann", 0, 1), ("ann", 1, 0)]
    assert credits_of(store, until=NOW + 49) == [("ann", 1, 0)]
    assert credits_of(store, window_seconds=10) == [("ann", 1, 0)]
    assert credits_of(store, until=NOW - 1) == []


def test_users_in_several_pieces_are_all_counted(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec_engine.data.experiment_lists.USERS_AT_ONCE", 2)
    users = ["Zoe", "ann", "ber", "Çem", "élo"]
    expose(store.url, *users)
    store.write([answer(f"r-{user}", {"7": TEAMS[1]}, user=user) for user in users])
    store.write([event(f"e-{user}", f"r-{user}", "7", user=user) for user in users])
    assert sorted(credits_of(store)) == sorted((user, 0, 1) for user in users)


def test_a_drafted_list_claims_no_probability(store: EventStore) -> None:
    store.write([answer("r1", {"7": TEAMS[0]})])
    found = load_impressions(store.url)
    assert np.isnan(found.propensities).tolist() == [True]
    assert found.positions.tolist() == [1]
