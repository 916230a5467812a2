"""`rec-engine simulate` as a user types it."""

import hashlib
from pathlib import Path

import pytest
from servers import served

from rec_engine.cli import main

SMALL = ["--users", "80", "--items", "60", "--interactions", "1500"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_the_same_seed_writes_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for name, seed in (("one", "3"), ("again", "3"), ("other", "4")):
        assert run("simulate", "--output", str(tmp_path / name), "--seed", seed, *SMALL) == 0
        files = sorted((tmp_path / name).iterdir())
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert len(digests[0]) == 6
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
    assert "Next: rec-engine train --train-data" in capsys.readouterr().out


def test_a_world_like_ones_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        f"u{user},i{(user * 7 + place) % 40},{1_700_000_000 + 90 * place}" for user in range(50) for place in range(8)
    ]
    (tmp_path / "past.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows))
    assert run("simulate", "--train-data", str(tmp_path / "past.csv"), "--output", str(tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "interactions a user: distance 0." in said
    assert (tmp_path / "out" / "fit.html").is_file()


def test_visitors_of_a_running_service(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rate = ["--rate", "30", "--duration", "1", "--k", "5"]
    with served(model_dir, tmp_path / "events.db", 1) as (url, _):
        assert run("simulate", "--against", url, *rate, *SMALL) == 0
        said = capsys.readouterr().out
        assert "30 of 30 visitors answered" in said
        assert "/recommend: 30 answers, p50" in said
        assert "150 of the items are not in the simulated world" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --output or --against"),
        (["--output", "a", "--against", "http://127.0.0.1:9"], "either --output or --against"),
        (["--output", "a", "--users", "0"], "above 0"),
        (["--against", "http://127.0.0.1:9", "--rate", "0"], "--rate 0"),
        (["--against", "http://127.0.0.1:9", "--k", "101"], "--k 101"),
        (["--against", "http://127.0.0.1:9", *SMALL], "nobody answers"),
        (["--output", "a", "--dataset", "nothing"], "no dataset 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("simulate", *flags) == 3
    assert message in capsys.readouterr().err
