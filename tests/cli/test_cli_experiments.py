"""`rec-engine experiments` from the plan to the verdict, and the demo of `evaluate`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import empty_database

from rec_engine.cli import main
from rec_engine.data.events import EventStore
from rec_engine.data.schema import standing
from rec_engine.evaluation.ab_demo import demo_json, run_demo

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_an_experiment_from_plan_to_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", f"sqlite:///{tmp_path / 'events.db'}"]
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "name: 'More :boom:'\ntreatment: {diversity: 0.3}\nguardrails: [conversion_rate]\ntarget_metrics: [ctr]\n"
    )
    EventStore(store[1]).close()
    assert "no experiment yet" in run(capsys, "experiments", "list", *store)[1]
    assert run(capsys, "experiments", "create", "variety", "--definition", str(plan), *store)[0] == 0
    assert "is running" in run(capsys, "experiments", "start", "variety", *store)[1]
    assert "More :boom:" in run(capsys, "experiments", "list", *store)[1]
    out = tmp_path / "results.json"
    code, said = run(capsys, "experiments", "analyze", "variety", "--output-file", str(out), *store)
    assert (code, "continue_running" in said) == (0, True)
    assert json.loads(out.read_text())["results"]["recommendations"]["action"] == "continue_running"
    page, users = tmp_path / "report.html", tmp_path / "users.csv"
    users.write_text("user_id,country\n1,de\n")
    asked = ("experiments", "report", "variety", "--output", str(page), "--users", str(users), *store)
    assert run(capsys, *asked)[0] == 0
    assert "continue_running" in page.read_text()
    assert run(capsys, "experiments", "stop", "variety", "--reason", "seen enough", *store)[0] == 0
    code, said = run(capsys, "experiments", "status", "variety", *store)
    assert (code, "is stopped" in said, "seen enough" in said) == (0, True, True)


def test_no_command_shows_the_password_of_a_store(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = empty_database(postgres_url) + "&password=secret"
    EventStore(url).close()
    for command in ("list", "create shy", "start shy", "list", "stop shy"):
        code, said = run(capsys, "experiments", *command.split(), "--store", url)
        assert (code, "postgresql://" in said, "secret" in said) == (0, True, False)


@pytest.mark.parametrize(
    "command",
    ["list", "start exp", "stop exp", "status exp", "analyze exp", "report exp --output page.html"],
)
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, said = run(capsys, "experiments", *command.split(), "--store", f"sqlite:///{tmp_path / 'evnets.db'}")
    assert (code, "there is no event store" in said) == (3, True)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_is_given_no_log_by_a_question(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = empty_database(postgres_url)
    assert run(capsys, "experiments", "list", "--store", url)[0] == 3
    assert standing(url)[1] is None


def test_an_interleaving_is_analysed_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", f"sqlite:///{tmp_path / 'events.db'}"]
    plan = tmp_path / "plan.yaml"
    plan.write_text("kind: interleaving\ntreatment: {use_reranking: false}\n")
    assert run(capsys, "experiments", "create", "drafts", "--definition", str(plan), *store)[0] == 0
    assert run(capsys, "experiments", "start", "drafts", *store)[0] == 0
    code, said = run(capsys, "experiments", "analyze", "drafts", *store)
    assert (code, "continue_running" in said, "preference" in said, "ctr" in said) == (0, True, True, False)


def test_a_bandit_is_analysed_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", f"sqlite:///{tmp_path / 'events.db'}"]
    plan = tmp_path / "plan.yaml"
    plan.write_text("kind: bandit\ntreatment: {exploration: 0.3}\n")
    assert run(capsys, "experiments", "create", "bandit", "--definition", str(plan), *store)[0] == 0
    assert run(capsys, "experiments", "start", "bandit", *store)[0] == 0
    out = tmp_path / "results.json"
    code, said = run(capsys, "experiments", "analyze", "bandit", "--output-file", str(out), *store)
    assert (code, "does not measure" in said, "share now" in said) == (0, True, True)
    assert json.loads(out.read_text())["results"]["arms"][1]["share"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "none"], "there is no experiment 'none'"),
        (["create", "no spaces please"], "experiment_id"),
        (["create", "a", "--metrics", "happiness"], "no metric 'happiness'"),
        (["create", "a", "--treatment-percentage", "50"], "treatment_percentage"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    store = f"sqlite:///{tmp_path / 'events.db'}"
    EventStore(store).close()
    code, printed = run(capsys, "experiments", *arguments, "--store", store)
    assert (code, said in printed) == (3, True)


def test_a_definition_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("- a list", "{open"):
        (tmp_path / "plan.yaml").write_text(text)
        store = f"sqlite:///{tmp_path / 'events.db'}"
        plan = str(tmp_path / "plan.yaml")
        assert run(capsys, "experiments", "create", "a", "--definition", plan, "--store", store)[0] == 3


def test_the_demo_is_the_same_to_the_byte_and_finds_what_is_there(tmp_path: Path) -> None:
    """The command of the brief; without torch, and without a model."""
    path = tmp_path / "ab_results.json"
    command = [sys.executable, "scripts/evaluate.py", "--run-ab-test-demo", "--output-file", str(path)]
    done = subprocess.run([*command, "--users", "20000"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "sample-ratio bug" in done.stdout
    assert path.read_text() == demo_json(42, 20_000, *run_demo(42, 20_000))
    demo = json.loads(path.read_text())
    actions = {scene["name"]: scene["results"]["recommendations"]["action"] for scene in demo["scenes"]}
    assert actions["A/A"] == "no_clear_winner"
    assert actions["clear win"] == "deploy_treatment"
    assert actions["win with a harmed guardrail"] == "keep_control"
    assert actions["sample-ratio bug"] == "investigate_further"
    assert demo["peeking"]["naive_z"] > 0.2
    assert demo["peeking"]["decided"] <= 0.1


def test_a_demo_of_too_few_users_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "evaluate", "--run-ab-test-demo", "--users", "10")[0] == 3
