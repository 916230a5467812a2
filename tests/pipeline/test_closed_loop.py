"""The closed loop on a tiny world: the log is a service's, the same settings give the same, and figures are right."""

import json
import re
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
from rec_engine.evaluation.off_policy import PolicyValue, Value
from rec_engine.evaluation.statistics import Estimate, bootstrap_mean
from rec_engine.experiments.proposal import CONTROL, TREATMENT
from rec_engine.pipeline import shown
from rec_engine.pipeline.closed_loop import FIRST, SMALL, Loop, LoopSettings, Version, run_loop
from rec_engine.pipeline.loop_experiment import ALIKE, DIFFERENT, Finding
from rec_engine.pipeline.loop_figures import figures, regret_gain
from rec_engine.pipeline.loop_people import ENGINE, OF_FIRST, OF_NEW, ORACLE, POPULARITY, RANDOM
from rec_engine.pipeline.loop_rankers import CORRECTED, UNCORRECTED
from rec_engine.pipeline.loop_report import report_on, table, write_loop
from rec_engine.pipeline.loop_trial import NEXT, Trial
from rec_engine.pipeline.loop_trial_figures import trial_figures

CONFIG = tiny_config(
    training={"num_epochs": 1},
    model={"user_encoder": "mean"},
    ctr={"model_type": "none"},
    evaluation=SMALL.evaluation.model_dump(),
)
SETTINGS = LoopSettings(
    n_rounds=2,
    n_users=160,
    n_items=60,
    n_interactions=24_000,
    past_days=10,
    round_days=4,
    exploration=0.1,
    trial_days=4,
    seed=3,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def loop(place: Path) -> Loop:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shown, "MIN_CLICKS", 10)  # the world is small
        return run_loop(SETTINGS, place, CONFIG)


@pytest.fixture(scope="module")
def trial(loop: Loop) -> Trial:
    assert loop.trial is not None
    return loop.trial


def test_answers_propensities_and_clicks_are_in_the_log_as_a_service_writes_them(loop: Loop, place: Path) -> None:
    shown = load_impressions(f"sqlite:///{place / 'events.db'}")
    assert shown.n_requests >= loop.answers.height > 50  # bots ask too
    assert shown.model_versions.n_unique() == SETTINGS.n_rounds + 2  # those of the trial
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
    first, second, _ = (open_bundle(each) for each in sorted((place / "models").glob("2*")))
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
    again = run_loop(replace(SETTINGS, trial_days=0), tmp_path, CONFIG)
    assert again.trial is None
    assert again.answers.drop("version").equals(loop.answers.drop("version"))


def test_parts_of_a_page_are_worth_no_more_than_the_page(loop: Loop) -> None:
    for policy in (ENGINE, FIRST, POPULARITY, RANDOM, ORACLE):
        for part in (OF_NEW, OF_FIRST):
            assert (loop.answers[f"{policy} {part}"] <= loop.answers[policy] + 1e-9).all()
    assert loop.answers[f"{ENGINE} {OF_FIRST}"].sum() > 10  # pages are empty where nothing is left to show
    assert (loop.answers["clicks_first"] <= loop.answers["clicks"]).all()
    assert loop.answers["clicks_first"].sum() > 0


def test_in_the_trial_the_version_before_logs_and_then_half_meet_the_next_one(trial: Trial, place: Path) -> None:
    first, second, following = (each.name for each in sorted((place / "models").glob("2*")))
    assert trial.version == following
    assert set(trial.logged["version"]) <= {first, second}
    arms = trial.tested.group_by("user").agg(pl.col("version").unique())["version"].to_list()
    assert {version for (version,) in arms} == {following, f"{following}-spoilt"}
    for finding in trial.findings.values():
        assert sum(finding.users) >= trial.tested["user"].n_unique()  # bots ask too
    shown = trial.tested.with_columns(met=pl.when(version=following).then(TREATMENT).otherwise(pl.col(CONTROL)))
    assert shown["met"].to_list() == pytest.approx(shown[ENGINE].to_list())


def test_two_rankers_learned_from_the_same_answers_and_differ(trial: Trial) -> None:
    for name in (CORRECTED, UNCORRECTED):
        assert (trial.tested[name] <= trial.tested[ORACLE] + 1e-6).all()
        assert trial.correlations[name].is_between(-1, 1).all()
    assert trial.correlations["user"].to_list() == trial.tested["user"].unique().sort().to_list()
    assert trial.correlations[CORRECTED].to_list() != trial.correlations[UNCORRECTED].to_list()


def test_an_estimate_that_cannot_be_had_is_refused_with_the_reason(loop: Loop) -> None:
    told = "\n".join(table(report_on(SETTINGS, loop, None)))
    assert re.search(r"refused: the log has answers to \d+ users; at least 50 are needed; by the truth there 0\.", told)
    assert re.search(r"Rank correlation .*: -?[01]\.\d+ \[", told)


def test_the_truth_of_a_trial_stands_beside_its_estimates() -> None:
    answers = ANSWERS.with_columns(
        pl.col("oracle").alias(CONTROL),
        pl.col("engine").alias(TREATMENT),
        pl.lit(0.5).alias(f"{NEXT} {OF_FIRST}"),
        (pl.col("oracle") - 1).alias(CORRECTED),
        (pl.col("oracle") - 2).alias(UNCORRECTED),
    )
    correlations = pl.DataFrame({"user": [7, 8], CORRECTED: [0.5, 0.7], UNCORRECTED: [0.4, 0.4]})
    finding = Finding((3, 3), 0.2, 0.1, None, 0.01, "continue_running")
    known = Value(0.4, 0.3, 0.6)
    value = PolicyValue(known, known, known, known, np.ones(1), np.ones(1))
    found = trial_figures(Trial(value, answers, answers, "v1", {DIFFERENT: finding, ALIKE: finding}, correlations))
    assert found.forecast.estimate == Estimate(0.4, 0.3, 0.6)
    assert found.forecast.by_truth == Estimate(0.5, 0.5, 0.5)
    assert found.forecast.earned.mean == pytest.approx(2 / 3)  # of the four first pages by v1, 1, 1 and 0
    assert found.true_difference == pytest.approx(16.5 / 24.5 - 1)
    assert found.correction is not None
    assert found.correction.regret_gain.mean == pytest.approx(-1)
    assert found.correction.correlation_gain.mean == pytest.approx(0.2)


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
    usual |= {"has_joined": [False], "is_first_page": [True], "version": ["v1"], "clicks_first": [1]}
    usual |= {f"{ENGINE} {OF_NEW}": [0.25], f"{POPULARITY} {OF_NEW}": [0.25], f"{ORACLE} {OF_NEW}": [0.5]}
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
    has_joined=[False, False, True, True, False, True],
    version=["v1", "v1", "v2", "v2", "v1", "v1"],
    is_first_page=[True, True, True, True, False, True],
    clicks_first=[1, 1, 1, 1, 1, 0],
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
    assert last.beyond_first.mean == pytest.approx(0.25)
    assert last.beyond_popularity.mean == pytest.approx((0.5 + 1.5 + 8) / 3)
    assert found.n_newcomers == 2
    assert found.newcomers[ENGINE].mean == pytest.approx((0.5 + 9) / 2)
    assert found.arrivals.n_users == 2
    assert found.arrivals.regret_of_new_users.mean == pytest.approx(((3 + 1.5) / 2 + 0) / 2)
    assert found.arrivals.regret_of_old_users.mean == pytest.approx((2 + 1 + 0.5) / 3)
    assert found.arrivals.new_items[ORACLE].mean == pytest.approx(0.5)
    assert found.arrivals.old_items[ENGINE].mean == pytest.approx((5.5 / 3 + 1 + 9) / 3 - 0.25)


def test_two_loops_are_compared_on_the_users_of_both() -> None:
    other = ANSWERS.filter(pl.col("user") != 9).with_columns(pl.col("engine") - 1.0)
    assert regret_gain(ANSWERS, other).mean == pytest.approx(-1.0)


def test_the_report_says_what_was_found(tmp_path: Path) -> None:
    version = Version(1, is_promoted=True, gate="a < b", is_reranked=True, ndcg=0.123, seconds=1.0)
    loop = Loop(ANSWERS, (version, replace(version, number=2, is_reranked=False)), None, 2.0)
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
