"""What is remembered of a user is what would be found again, and whoever meets an arm is written once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sql
from clocks import START, Clock

from rec_engine.data.events import Erasure, EventStore, user_hash
from rec_engine.data.experiment_tables import exposure_rows
from rec_engine.experiments import recorder
from rec_engine.experiments.live_experiments import LiveExperiments
from rec_engine.experiments.measuring import measure
from rec_engine.experiments.proposal import Proposal
from rec_engine.serving import treatments as module
from rec_engine.serving.treatments import Treatment, Treatments
from rec_engine.utils.config import RecommendationSettings

USERS = range(200)


@pytest.fixture
def live(store_url: str, clock: Clock) -> Iterator[LiveExperiments]:
    found = LiveExperiments(store_url, clock)
    yield found
    found.close()


@pytest.fixture
def treatments(live: LiveExperiments, clock: Clock) -> Treatments:
    return Treatments(live, RecommendationSettings(), clock)


def begin(live: LiveExperiments, experiment_id: str = "exp", /, **fields: object) -> None:
    proposal = Proposal.of(experiment_id=experiment_id, name="Test", reads_service=True, **fields)
    live.lifecycle.create(proposal.experiment(0))
    live.lifecycle.start(experiment_id)


def country(user: int) -> dict[str, object]:
    return {"country": "fr" if user % 2 else "de"}


def met_by_all(treatments: Treatments, live: LiveExperiments) -> list[Treatment]:
    """Return what all users have, once their meetings are on disk."""
    found = [treatments.of(user, partial(country, user)) for user in USERS]
    for user, treatment in zip(USERS, found, strict=True):
        treatments.met(user, treatment)
    live.recorder.flush()
    return [replace(each, to_note=()) for each in found]


@pytest.mark.parametrize(
    "fields",
    [
        {"coverage": 0.5},
        {"coverage": 0.5, "holdout": 0.3, "forced": {"1": "control", "2": "treatment"}},
        {"coverage": 0.5, "targeting": {"country": ["fr"]}},
        {"coverage": 0.5, "end_date": START + 100},
        {"coverage": 0.5, "start_date": START + 50, "end_date": START + 100},
        {"coverage": 0.5, "kind": "interleaving"},
    ],
    ids=["coverage", "holdout", "targeting", "end", "start", "interleaving"],
)
def test_who_comes_again_has_what_a_new_worker_finds(
    treatments: Treatments, live: LiveExperiments, clock: Clock, fields: dict[str, object]
) -> None:
    begin(live, treatment={"diversity": 0.9}, **fields)
    begin(live, "other", coverage=0.5, treatment={"use_reranking": False})
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: live.lifecycle.allocate("exp", coverage=0.9),
        lambda: live.lifecycle.pause("exp"),
        lambda: live.lifecycle.resume("exp"),
        lambda: live.lifecycle.stop("other"),
    ]
    for step in steps:
        step()
        for clock.now in (START, START + 49, START + 50, START + 99, START + 100, START + 1.0):
            fresh = met_by_all(Treatments(live, RecommendationSettings(), clock), live)
            assert met_by_all(treatments, live) == fresh
            assert met_by_all(treatments, live) == fresh


def test_who_met_an_arm_keeps_it_when_shares_move(treatments: Treatments, live: LiveExperiments) -> None:
    begin(live, treatment_percentage=0.1)
    before = [each.label for each in met_by_all(treatments, live)]
    live.lifecycle.allocate("exp", shares=(0.5, 0.5))
    live.refresh()
    assert [each.label for each in met_by_all(treatments, live)] == before


def test_a_user_is_written_and_counted_once(treatments: Treatments, live: LiveExperiments, clock: Clock) -> None:
    begin(live)
    for clock.now in (START + 5, START + 6):
        for user in (1, "1", 1):  # the same user
            treatments.met(user, treatments.of(user, dict))
    live.recorder.flush()
    for clock.now in (START + 7, START + 8):
        met_by_all(treatments, live)
    measured = measure(live.log.url, live.lifecycle.get("exp"), START + 100)
    assert (measured.n_users, sum(treatments.take().values())) == (len(USERS), len(USERS))
    assert not treatments.take()
    assert treatments.of(1, dict).to_note == ()
    live.lifecycle.stop("exp")
    assert treatments.of(1, dict).label is None


def test_the_first_time_is_that_of_the_meeting(treatments: Treatments, live: LiveExperiments, clock: Clock) -> None:
    begin(live)
    clock.now = START + 5.0
    with live.recorder._write_lock:  # the recorder is late
        treatments.met(1, treatments.of(1, dict))
        clock.now = START + 50.0
        treatments.met(1, treatments.of(1, dict))
    live.recorder.flush()
    with live.log._reader.connect() as connection:
        assert connection.execute(sql.select(exposure_rows.c.timestamp)).all() == [(START + 5,)]


def test_who_was_erased_before_he_was_written_is_not(
    treatments: Treatments, live: LiveExperiments, store_url: str
) -> None:
    begin(live)
    store = EventStore(store_url)
    with live.recorder._write_lock:
        treatments.met(1, treatments.of(1, dict))
        treatments.met(2, treatments.of(2, dict))
        store.write([Erasure("1", user_hash("1"))])
        live.recorder.known = live.log.position()  # a round of the recorder ends just now
    live.recorder.flush()
    store.close()
    assert set(live.log.arms_met("exp")) == {"2"}


def test_who_was_dropped_for_want_of_room_is_written_when_he_comes_again(
    treatments: Treatments, live: LiveExperiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(live)
    monkeypatch.setattr(recorder, "MAX_WAITING", 0)
    treatments.met(1, treatments.of(1, dict))
    assert live.recorder.n_dropped == 1
    monkeypatch.undo()
    treatments.met(1, treatments.of(1, dict))
    live.recorder.flush()
    assert set(live.log.arms_met("exp")) == {"1"}


def test_who_is_forgotten_is_only_looked_at_again(
    treatments: Treatments, live: LiveExperiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 50)
    begin(live, coverage=0.5)
    found = met_by_all(treatments, live)
    assert len(treatments._standing.remembered) <= 50
    assert met_by_all(treatments, live) == found
    n_in = sum(each.label is not None for each in found)
    assert sum(treatments.take().values()) == len(live.log.arms_met("exp")) == n_in
