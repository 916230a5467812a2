"""The demo's path without its server: data that cannot be had, and the second run."""

from pathlib import Path

import pytest
from conftest import tiny_config

from rec_engine.data import movielens
from rec_engine.data.data_loader import load_dataset
from rec_engine.pipeline import demo


def write_movielens(folder: Path) -> None:
    """Write a tiny data set in the layout of MovieLens 100K."""
    folder.mkdir(parents=True)
    ratings = [
        (user, 1 + (7 * user + 3 * place) % 50, 3, 880_000_000 + place) for user in range(1, 41) for place in range(15)
    ]
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in ratings))
    flags = "|".join(["0"] * 18)
    (folder / "u.item").write_text(
        "".join(f"{item}|Film {item} (1995)|01-Jan-1995||url|1|{flags}\n" for item in range(1, 51))
    )
    (folder / "u.genre").write_text("".join(f"genre {number}|{number}\n" for number in range(19)))
    (folder / "u.user").write_text("".join(f"{user}|30|M|writer|12345\n" for user in range(1, 41)))


def test_demo_trains_compares_and_says_what_to_try_and_a_second_run_does_not_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_movielens(tmp_path / "data/ml-100k")
    monkeypatch.setattr(demo, "CONFIG", tiny_config())
    for has_model in (False, True):
        demo.run_demo(tmp_path / "data", tmp_path / "models", 8000, serve=False)
        shown = capsys.readouterr().out
        assert "movielens-100k" in shown
        assert "co-visitation" in shown
        assert "/recommend" in shown
        assert ("no need to train again" in shown.replace("\n", " ")) == has_model


def test_without_movielens_the_demo_goes_on_with_simulated_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str, headers: dict[str, str]) -> None:
        raise OSError(f"{url}: unreachable")

    monkeypatch.setattr(movielens, "_open", unreachable)
    monkeypatch.setattr(movielens, "_recbole_wheel", lambda folder: unreachable("pypi", {}))
    name, dataset = demo._data(tmp_path)
    assert name == "demo"
    assert dataset.n_users == 2_000
    assert dataset.fingerprint == load_dataset("demo", tmp_path).fingerprint
