"""The command line as a user meets it: real processes, real files."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import interactions_frame, items_frame

from rec_engine import cli
from rec_engine.errors import CheckError, RecEngineError
from rec_engine.serving.security import Gate
from rec_engine.utils.config import ServingConfig

FAST = ["--epochs", "1", "--batch-size", "64"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rec_engine", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def write_files(directory: Path) -> Path:
    """Write interactions.csv, items.csv and a configuration small enough for tests."""
    interactions_frame().write_csv(directory / "interactions.csv")
    items_frame().with_columns(pl.col("categories").list.join("|")).write_csv(directory / "items.csv")
    (directory / "tiny.yaml").write_text(
        "model: {embedding_dim: 16, tower_dims: [16], max_history_len: 20}\ntraining: {learning_rate: 0.01}\n"
    )
    return directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files lie, and the model that was trained on them."""
    directory = write_files(tmp_path_factory.mktemp("trained"))
    done = run(*custom(), cwd=directory)
    assert done.returncode == 0, done.stderr
    assert "is the current model" in done.stdout.replace("\n", " ")
    return directory


def custom(*more: str) -> Sequence[str]:
    data = ["--dataset", "custom", "--train-data", "interactions.csv", "--items-data", "items.csv"]
    return ["train", "--config", "tiny.yaml", *data, *FAST, *more]


def test_train_evaluate_recommend_from_own_files(trained: Path) -> None:
    evaluated = run("evaluate", "--k-values", "5", "10", "--output-file", "report.json", cwd=trained)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Left out: 0 targets" in evaluated.stdout
    report = json.loads((trained / "report.json").read_text())
    assert {"popularity", "recent popularity", "co-visitation", "ItemKNN", "EASE", "two-tower"} <= set(report)
    assert 0 <= report["two-tower"]["ndcg@10.low"] <= report["two-tower"]["ndcg@10"] <= 1
    written = run("recommend", "--users", "all", "--k", "3", "--output", "recs.parquet", cwd=trained)
    assert written.returncode == 0, written.stderr
    assert pl.read_parquet(trained / "recs.parquet").height == 180


def test_models_can_be_compared_by_name(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "models", tmp_path / "models")
    compared = run("evaluate", "--compare", "baseline:models", f"improved:{tmp_path / 'models'}", cwd=trained)
    assert compared.returncode == 0, compared.stderr
    assert "baseline: two-tower" in compared.stdout
    assert "improved: two-tower" in compared.stdout


def test_validation_and_test_data_of_their_own(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    whole = pl.read_csv(files / "interactions.csv").with_columns(pl.int_range(pl.len()).over("user_id").alias("place"))
    last = whole.group_by("user_id").agg(pl.col("place").max().alias("end"))
    whole = whole.join(last, on="user_id")
    whole.filter(pl.col("place") < pl.col("end")).drop("place", "end").write_csv(files / "interactions.csv")
    whole.filter(pl.col("place") == pl.col("end")).drop("place", "end").write_csv(files / "val.csv")
    trained = run(*custom("--val-data", "val.csv"), cwd=files)
    assert trained.returncode == 0, trained.stderr
    assert "validation" in trained.stdout
    evaluated = run("evaluate", "--test-data", "val.csv", cwd=files)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "val.csv: 60 users" in evaluated.stdout


WRONG_FLAGS = {"unknown flag", "wrong type of flag", "unknown command"}
BAD_INPUT = {
    "missing file": (["train", "--dataset", "custom", "--train-data", "gone.csv"], "gone.csv"),
    "empty file": (["train", "--dataset", "custom", "--train-data", "empty.csv"], "empty.csv"),
    "missing column": (["train", "--dataset", "custom", "--train-data", "nocolumn.csv"], "item_id"),
    "no train data": (["train", "--dataset", "custom"], "--train-data"),
    "unknown dataset": (["train", "--dataset", "movielens-1n"], "movielens-1m"),
    "unknown flag": (["train", "--epoch", "3"], "epoch"),
    "wrong type of flag": (["train", "--epochs", "many"], "epochs"),
    "value out of range": (["train", "--epochs", "0"], "num_epochs"),
    "unknown setting": (["train", "--config", "typo.yaml"], "did you mean training.batch_size"),
    "no model": (["serve", "--model-dir", "nothing"], "no trained model"),
    "no model to evaluate": (["evaluate", "--model-dir", "nothing"], "no trained model"),
    "bad comparison": (["evaluate", "--compare", "models"], "NAME:DIRECTORY"),
    "unknown command": (["trian"], "trian"),
    "one item": (["train", "--dataset", "custom", "--train-data", "oneitem.csv"], "two positive interactions"),
    "model dir that is a file": (["train", "--config", "small.yaml", "--model-dir", "empty.csv"], "empty.csv"),
    "contradiction": (["train", "--dataset", "demo", "--train-data", "dates.csv"], "takes no files"),
    "too many rejects": (["train", "--dataset", "custom", "--train-data", "dates.csv"], "dates.csv"),
}


@pytest.mark.parametrize("case", list(BAD_INPUT))
def test_bad_input_is_one_clear_sentence_and_its_exit_code(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "nocolumn.csv").write_text("user_id,thing\n1,2\n")
    (tmp_path / "oneitem.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    (tmp_path / "dates.csv").write_text("user_id,item_id,timestamp\n1,2,12/31/2019\n1,3,1/1/2020\n")
    (tmp_path / "small.yaml").write_text(
        "model: {embedding_dim: 8, tower_dims: [8], user_encoder: mean}\ntraining: {num_epochs: 1}\n"
    )
    (tmp_path / "typo.yaml").write_text("training: {batch_sise: 3}\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    arguments, expected = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == (2 if case in WRONG_FLAGS else 3)
    assert expected in error
    assert "Traceback" not in error
    left = {path.name for path in tmp_path.iterdir()} - set(before)
    assert left <= {"dates.rejects.csv"}


def test_an_error_is_told_letter_by_letter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["models", "verify", ":smile:", "--model-dir", str(tmp_path)])
    assert "':smile:'" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "rec_engine", "models", "list", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        3,
        "Error: the output could not be written: No space left on device",
    )


def test_port_in_use_is_said_before_anything_starts(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USE_MEMORY_CACHE", "true")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit) as stopped:
            cli.main(["serve", "--model-dir", str(model_dir), "--host", "127.0.0.1", "--port", port])
    assert stopped.value.code == 3
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["--help"], result_action="return_value")
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("demo", "train", "evaluate", "recommend", "serve", "simulate"))
    assert shown.index("Begin") < shown.index("Train and judge") < shown.index("Operate") < shown.index("Try first")
    assert "rec-engine train --train-data interactions.csv " in shown


def test_exit_codes_are_told_where_they_are_looked_for() -> None:
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    for code in (0, 1, cli.USAGE, cli.DATA, cli.INTERRUPTED):
        assert re.search(rf"^\| {code} \|", page, re.M)
        assert re.search(rf"\b{code} ", cli.EPILOGUE.rpartition("Exit codes")[2])
    assert (RecEngineError.exit_code, CheckError.exit_code) == (cli.DATA, 1)


def test_tables_are_printed_as_json_for_programs(trained: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'state.db'}"
    assert run("experiments", "create", "variety", "--store", store, cwd=trained).returncode == 0
    printed = {
        name: json.loads(run(*command.split(), "--json", cwd=trained).stdout)
        for name, command in {
            "evaluate": "evaluate --k-values 5",
            "models": "models list",
            "capacity": "capacity --users 10 --items 10",
            "list": f"experiments list --store {store}",
            "status": f"experiments status variety --store {store}",
            "analyze": f"experiments analyze variety --store {store}",
        }.items()
    }
    assert printed["evaluate"]["two-tower"]
    assert printed["models"][0]["is_current"]
    assert {"name", "worker", "shared", "disk"} <= set(printed["capacity"]["parts"][0])
    assert printed["list"][0]["experiment_id"] == printed["status"]["experiment"]["experiment_id"] == "variety"
    assert printed["analyze"]["recommendations"]["action"]


def test_completion_is_installed_for_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run("--install-completion", "--shell", "bash", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert any("rec-engine" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_new_key_opens_the_service_that_knows_its_entry(tmp_path: Path) -> None:
    made = run("keys", "new", "--name", "shop", "--scope", "serve", cwd=tmp_path)
    key, _, entry = made.stdout.partition("\n")
    security = ServingConfig.model_validate(yaml.safe_load(entry[entry.index("security:") :])).security
    gate = Gate(security)
    headers = [(b"authorization", b"Bearer " + key.encode())]
    assert gate.refusal("POST", "/recommend", headers, "10.0.0.1") is None
    assert gate.refusal("POST", "/items", headers, "10.0.0.1") is not None
    assert gate.refusal("POST", "/recommend", [], "10.0.0.1") is not None


def test_an_open_address_without_keys_is_refused_with_the_ways_out(trained: Path) -> None:
    refused = run("serve", "--host", "0.0.0.0", "--port", "8000", cwd=trained)  # noqa: S104 - it is refused
    assert refused.returncode == 3
    assert "rec-engine keys new" in refused.stderr
    assert "allow_public_without_keys" in refused.stderr
