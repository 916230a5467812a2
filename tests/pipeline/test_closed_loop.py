"""The closed loop on a tiny world: the log is a service's, the same settings give the same, and figures are right."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import tiny_config

from rec_engine import cli
from rec_engine.bundle import open_bundle
from rec_engine.data.impressions import load_impressions
from rec_engine.errors import DataError
from rec_engine.evaluation.statistics import bootstrap_mean
from rec_engine.pipeline.closed_loop import FIRST, Loop, LoopSettings, Version, run_loop
from rec_engine.pipeline.loop_figures import figures, gain
from rec_engine.pipeline.loop_people import ENGINE, ORACLE, POPULARITY, RANDOM
from rec_engine.pipeline.loop_report import report_on, table, write_loop

CONFIG = tiny_config(training={"num_epochs": 1}, model={"user_encoder": "mean"}, ctr={"model_type": "none"})
SETTINGS = LoopSettings(
    n_rounds=2, n_users=40, n_items=40, n_interactions=6_000, past_days=10, round_days=4, exploration=0.1, seed=3
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def loop(place: Path) -> Loop:
    return run_loop(SETTINGS, place, CONFIG)


def test_answers_propensities_and_clicks_are_in_the_log_as_a_service_writes_them(loop: Loop, place: Path) -> None:
    shown = load_impressions(f"sqlite:///{place / 'events.db'}")
    assert shown.n_requests >= loop.answers.height > 50  # bots ask too
    assert shown.model_versions.n_unique() == SETTINGS.n_rounds
    assert shown.clicked.sum() >= loop.answers["clicks"].sum() > 0
    assert (shown.propensities < 1).mean() > 0.5
    assert set(shown.positions.tolist()) == set(range(1, 11))
    assert not shown.request_ids.is_duplicated().any()


def test_a_visit_shows_nothing_twice_and_nothing_that_was_clicked_before(loop: Loop, place: Path) -> None:
    shown = load_impressions(f"sqlite:///{place / 'events.db'}")
    requests = shown.request_ids.gather(shown.request_codes)
    pages = pl.DataFrame({"visit": requests.str.replace(r"-\d+$", ""), "request": requests, "item": shown.item_ids})
    assert pages.select("visit", "request").unique().group_by("visit").len()["len"].max() > 1  # type: ignore[operator]
    assert not pages.select("visit", "item").is_duplicated().any()
    users = shown.user_ids.gather(shown.request_codes)
    clicks = pl.DataFrame({"user": users, "item": shown.item_ids}).filter(pl.Series(shown.clicked))
    assert clicks.height > loop.answers["clicks"].sum() / 2
    assert not clicks.is_duplicated().any()


def test_the_next_version_was_trained_on_what_the_one_before_was_clicked_for(loop: Loop, place: Path) -> None:
    first, second = (open_bundle(each) for each in sorted((place / "models").glob("2*")))
    assert [version.is_promoted for version in loop.versions] == [True, True]
    assert [version.ndcg for version in loop.versions] == [each.manifest.metrics["ndcg@10"] for each in (first, second)]
    n_clicks = int(loop.answers.filter(round=1)["clicks"].sum())
    assert second.manifest.log_position - first.manifest.log_position >= n_clicks > 0
    assert len(second.history) > len(first.history)


def test_no_page_is_worth_more_than_the_best_and_the_first_version_is_that_of_the_first_round(loop: Loop) -> None:
    answers = loop.answers
    for policy in (ENGINE, FIRST, POPULARITY, RANDOM):
        assert (answers[policy] <= answers[ORACLE] + 1e-6).all()
    first, last = (answers.filter(round=number) for number in (1, 2))
    assert first[ENGINE].to_list() == first[FIRST].to_list()
    assert last[ENGINE].to_list() != last[FIRST].to_list()
    assert abs(np.mean(answers["clicks"].to_numpy() - answers[ENGINE].to_numpy())) < 0.3


def test_the_same_settings_give_the_same_answers(loop: Loop, tmp_path: Path) -> None:
    again = run_loop(SETTINGS, tmp_path, CONFIG)
    assert again.answers.equals(loop.answers)


def test_a_world_in_which_nobody_comes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nobody came in round 1"):
        run_loop(replace(SETTINGS, round_days=1e-6), tmp_path, CONFIG)


def test_an_output_that_is_no_folder_is_refused_before_the_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as done:
        cli.main(["simulate", "--loop", "--output", str(tmp_path / "file")])
    assert done.value.code != 0
    assert "give a folder" in capsys.readouterr().err


def frame(**columns: list[object]) -> pl.DataFrame:
    usual: dict[str, list[object]] = {"new_shown": [0.0], "new_there": [0.1], "is_first": [False], "clicks": [0]}
    n = len(columns["user"])
    return pl.DataFrame({name: cells * n for name, cells in usual.items()} | columns)


ANSWERS = frame(
    round=[1, 1, 1, 2, 2, 2],
    user=[7, 7, 8, 8, 7, 9],
    engine=[1.0, 2.0, 0.5, 1.5, 2.5, 9.0],
    oracle=[3.0, 3.0, 3.5, 3.0, 3.0, 9.0],
    popularity=[1.0] * 6,
    random=[0.5] * 6,
    is_first=[False, False, True, False, False, True],
    clicks=[1, 3, 0, 2, 2, 2],
).with_columns(pl.col("engine").alias(FIRST) - 0.25)


def test_figures_are_means_over_users() -> None:
    found = figures(ANSWERS)
    first, last = found.rounds
    assert (first.n_answers, first.n_users, last.n_users) == (3, 2, 3)
    assert first.worth[ENGINE].mean == pytest.approx((1.5 + 0.5) / 2)
    assert first.regret[ENGINE].mean == pytest.approx((1.5 + 3.0) / 2)
    assert first.clicks.mean == pytest.approx((2 + 0) / 2)
    assert last.regret[POPULARITY].mean == pytest.approx((2 + 2 + 8) / 3)
    assert first.worth[ENGINE] == bootstrap_mean(np.array([1.5, 0.5]))
    assert found.learned.mean == pytest.approx(((0.5 - 1.5) + (1.5 - 3.0)) / 2)  # users 7 and 8 came in both
    assert found.retrained.mean == pytest.approx(0.25)
    assert found.beyond_popularity.mean == pytest.approx((0.5 + 1.5 + 8) / 3)
    assert found.n_newcomers == 2
    assert found.newcomers[ENGINE].mean == pytest.approx((0.5 + 9) / 2)


def test_two_loops_are_compared_on_the_users_of_both() -> None:
    other = ANSWERS.filter(pl.col("user") != 9).with_columns(pl.col("engine") - 1.0)
    assert gain(ANSWERS, other).mean == pytest.approx(1.0)


def test_the_report_says_what_was_found(tmp_path: Path) -> None:
    version = Version(1, is_promoted=True, gate="a < b", is_reranked=True, ndcg=0.123, seconds=1.0)
    loop = Loop(ANSWERS, (version, replace(version, number=2, is_reranked=False)), 2.0)
    report = report_on(SETTINGS, loop, loop)
    assert report.exploration_gain is not None
    assert report.exploration_gain.mean == 0
    data, page = write_loop(report, tmp_path / "new")
    told = json.loads(data.read_text(encoding="utf-8"))
    assert told["figures"]["rounds"][0]["regret"]["engine"]["mean"] == pytest.approx(2.25)
    assert told["settings"]["n_users"] == SETTINGS.n_users
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "a &lt; b" in text
    lines = "\n".join(table(report))
    assert "2.250 [" in lines
    assert lines.count("0.123, re-ranked") == 1
    assert "Does exploration pay?" in lines


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--loop"], "--output"),
        (["--loop", "--against", "http://127.0.0.1:1"], "demo shop"),
        (["--loop", "--output", "x", "--dataset", "demo"], "demo shop"),
        (["--loop", "--output", "x", "--rounds", "0"], "--rounds 0"),
        (["--loop", "--output", "x", "--exploration", "11"], "--exploration 11"),
    ],
)
def test_flags_that_make_no_loop_are_refused(
    flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["simulate", *flags])
    assert done.value.code != 0
    assert complaint in capsys.readouterr().err.replace("\n", " ")
