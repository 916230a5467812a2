"""Old events go, and no experiment that goes on is measured differently for it."""

import time
from collections.abc import Iterator

import pytest
from conftest import empty_database, store_rows
from hypothesis import given
from hypothesis import strategies as st
from proposals import proposed, running

from rec_engine import cli
from rec_engine.data import pruning
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.experiment_log import ExperimentLog, Exposure, TakenLook
from rec_engine.data.pruning import count_older, prune
from rec_engine.data.schema import standing
from rec_engine.errors import ExperimentError
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.effects_over_time import effects_over_time
from rec_engine.experiments.lifecycle import Lifecycle
from rec_engine.experiments.looking import results_of
from rec_engine.experiments.measuring import measure
from rec_engine.experiments.results import Look
from rec_engine.experiments.retention import cut_off, cut_off_of, needed_since

DAY = 86_400
NOW = 1_700_000_000


@pytest.fixture
def filled(store_url: str) -> Iterator[EventStore]:
    """Events and impressions of 100 days, those of each day by another user, the latest ones written first."""
    store = EventStore(store_url)
    for day in range(100):
        at = NOW - day * DAY
        store.write(
            [
                Event(f"e-{day}", f"user {day % 5}", "tea", "click", at),
                Impression(f"r-{day}", f"user {day % 5}", at, "v", "[]", known=10**6),
            ]
        )
    yield store
    store.close()


def test_what_is_older_goes_whatever_its_place_in_the_log(filled: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "STRETCH", 7)
    position, before = filled.position(), store_rows(filled.url)
    counted = count_older(filled.url, NOW - 30 * DAY)
    assert store_rows(filled.url) == before
    assert prune(filled.url, NOW - 30 * DAY) == counted
    assert (counted.events, counted.impressions) == (69, 69)
    after = store_rows(filled.url)
    for table in ("events", "impressions"):
        kept = [row for row in before[table] if any(isinstance(x, int) and NOW - 30 * DAY <= x <= NOW for x in row)]
        assert after[table] == kept
    assert {name: after[name] for name in after.keys() - {"events", "impressions", "turns"}} == {
        name: before[name] for name in after.keys() - {"events", "impressions", "turns"}
    }
    assert filled.position() == position
    assert prune(filled.url, NOW - 60 * DAY).events == 0
    log = ExperimentLog(filled.url)
    assert [log.pruned_before(with_impressions=needed) for needed in (False, True)] == [NOW - 30 * DAY] * 2
    log.close()


def experiment(store_url: str, name: str, started_at: int, **fields: object) -> Experiment:
    log = ExperimentLog(store_url)
    lifecycle = Lifecycle(log, lambda: started_at)
    lifecycle.create(
        proposed(**{"target_metrics": ["ctr"]} | fields, experiment_id=name, reads_service=True).experiment(0)
    )
    begun = lifecycle.start(name)
    exposures = [Exposure(name, f"user {user}", "control", 0, started_at, 0.5, known=10**6) for user in range(5)]
    log.write(exposures)
    log.close()
    return begun


def test_what_a_running_experiment_measures_stays_and_what_it_does_not_goes(filled: EventStore) -> None:
    begun = experiment(filled.url, "running", NOW - 20 * DAY, window_days=10)
    measured = measure(filled.url, begun, NOW)
    assert measured.totals["clicks"].sum() == 11
    cut = cut_off(filled.url, NOW - 5 * DAY, NOW)
    assert (cut.held_by, cut.ended) == ("running", ())
    assert NOW - 30 * DAY <= cut.before <= NOW - 20 * DAY
    assert prune(filled.url, cut.before).events > 60
    again = measure(filled.url, begun, NOW)
    for found, wanted in ((again.totals, measured.totals), (again.before, measured.before)):
        assert {name: values.tolist() for name, values in found.items()} == {
            name: values.tolist() for name, values in wanted.items()
        }
    log = ExperimentLog(filled.url)
    assert results_of(log, begun, NOW) is not None
    log.close()


def test_a_stopped_experiment_is_named_and_never_measured_by_what_is_left(filled: EventStore) -> None:
    experiment(filled.url, "old", NOW - 90 * DAY)
    log = ExperimentLog(filled.url)
    stopped = Lifecycle(log, lambda: NOW - 80 * DAY).stop("old")
    results_of(log, stopped, NOW)
    cut = cut_off(filled.url, NOW - 85 * DAY, NOW)
    assert cut.ended == ("old",)
    seen = Look(users=2, fraction=0.5, days=1, statistics=()).model_dump_json()
    log.add_look(TakenLook("old", 1, NOW - 82 * DAY, stopped.version, seen, '{"comparisons": []}'))
    whole = effects_over_time(log, stopped, NOW)
    assert whole.missing is None
    assert {moment.is_look for moment in whole.moments} == {True, False}
    prune(filled.url, cut.before)
    left = effects_over_time(log, stopped, NOW)
    assert left.moments == [moment for moment in whole.moments if moment.is_look]
    assert "old cannot be measured any more" in str(left.missing)
    with pytest.raises(ExperimentError, match="old cannot be measured any more"):
        results_of(log, stopped, NOW)
    assert [each.version for each in log.versions("old")] == [1, 2, 3]
    log.close()


@pytest.mark.parametrize(
    ("fields", "reads"),
    [
        ({"target_metrics": ["conversion_rate"]}, False),
        ({"target_metrics": ["conversion_rate"], "guardrails": ["ctr"]}, True),
        ({"target_metrics": ["ctr"]}, True),
        ({"kind": "interleaving", "target_metrics": None}, True),
        ({"kind": "bandit", "target_metrics": ["conversion_rate"]}, False),
    ],
)
def test_what_was_shown_goes_and_only_who_is_measured_by_it_is_refused(
    filled: EventStore, fields: dict[str, object], reads: bool
) -> None:
    experiment(filled.url, "old", NOW - 90 * DAY, **fields)
    log = ExperimentLog(filled.url)
    stopped = Lifecycle(log, lambda: NOW - 80 * DAY).stop("old")
    found = results_of(log, stopped, NOW)
    assert prune(filled.url, NOW - 85 * DAY, ["impressions"]).impressions == 14
    assert [log.pruned_before(with_impressions=needed) for needed in (False, True)] == [0, NOW - 85 * DAY]
    if reads:
        with pytest.raises(ExperimentError, match="old cannot be measured any more"):
            results_of(log, stopped, NOW)
    else:
        assert results_of(log, stopped, NOW) == found
    prune(filled.url, NOW - 85 * DAY, ["events"])
    with pytest.raises(ExperimentError, match="old cannot be measured any more"):
        results_of(log, stopped, NOW)
    log.close()


@given(
    st.lists(st.tuples(st.integers(0, 1_000), st.sampled_from(["running", "paused", "stopped", "draft"])), max_size=5),
    st.integers(0, 1_000),
)
def test_the_cut_is_never_later_than_wanted_nor_than_what_is_needed(starts: list[tuple[int, str]], wanted: int) -> None:
    found = [
        running(proposed(experiment_id=f"e{place}"), start).model_copy(
            update={"status": status} | ({"started_at": None} if status == "draft" else {})
        )
        for place, (start, status) in enumerate(starts)
    ]
    cut = cut_off_of(found, wanted, 1_000)
    going_on = [each for each in found if each.status in {"running", "paused"}]
    assert cut.before == min([wanted, *(needed_since(each, 1_000) for each in going_on)])
    assert (cut.held_by is None) == (cut.before == wanted)


def test_the_command_says_what_it_removed_and_what_it_kept(store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store, now = EventStore(store_url), int(time.time())
    store.write([Event(f"e-{day}", "ann", "tea", "click", now - day * DAY) for day in range(0, 100, 10)])
    store.close()
    experiment(store_url, "running", now - 60 * DAY, window_days=5)

    def run(*more: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["store", "prune", "--store", store_url, *more])
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out + printed.err

    code, said = run("--older-than", "50d", "--dry-run")
    assert code == 0
    assert "3 events and 0 impressions" in said
    assert "running is not stopped" in said
    assert "3 events and 0 impressions" in run("--older-than", "50d")[1]
    assert "0 events" in run("--older-than", "50d")[1]
    for wrong in ("50", "0d", "-3d", "a year", "999999d"):
        code, said = run("--older-than", wrong)
        # What looks like a flag is refused as one.
        assert (code, "such as 365d" in said, "--help" in said) in {(3, True, False), (2, False, True)}


def test_a_database_without_a_log_is_not_given_one_to_prune(
    postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = empty_database(postgres_url)
    with pytest.raises(SystemExit, match="3"):
        cli.main(["store", "prune", "--store", url, "--older-than", "50d"])
    assert "there is no event store" in capsys.readouterr().err
    assert standing(url)[1] is None
