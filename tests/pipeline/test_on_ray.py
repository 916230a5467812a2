"""Two workers of Ray reach what one process does, and recommend the same."""

import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import ray
import torch
from worlds import checkerboard, interactions

from rec_engine.cli import main
from rec_engine.data.splits import Split, leave_one_out
from rec_engine.errors import ConfigError
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models.training import TwoTowerTrainer, validation_ndcg_at_10
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.pipeline import on_ray
from rec_engine.pipeline.on_ray import TrainingJob, train_on_ray
from rec_engine.utils.config import TrainingSettings

N = 40
MIB = 2**20
SETTINGS = TrainingSettings(batch_size=8, num_epochs=4, learning_rate=0.01, device="cpu", warmup_steps=5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine with room for two workers, as small as it can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in on_ray.ENVIRONMENT.items():
            patch.setenv(name, value)
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * MIB, logging_level="error")
        yield
        ray.shutdown()


def job(split: Split, directory: Path) -> TrainingJob:
    torch.manual_seed(0)
    towers = TwoTowerModel(N, N, 16, [16], dropout=0.0, temperature=0.1, n_blocks=1, max_history_len=12)
    return TrainingJob(towers, SETTINGS, split.train, validation_task(split), directory / "checkpoint.safetensors")


@pytest.mark.usefixtures("cluster")
def test_two_workers_train_as_one_process_does(tmp_path: Path) -> None:
    split = leave_one_out(checkerboard(N))
    alone, together = job(split, tmp_path), job(split, tmp_path)
    expected = TwoTowerTrainer(alone.model, SETTINGS).fit(split.train, validation_task(split))
    together.checkpoint.write_bytes(b"of a run that shall not go on")
    found = train_on_ray(together, 2, resume=False)
    # The first epoch is the same but for the order of sums, which later ones amplify.
    assert found[0].loss == pytest.approx(expected[0].loss, rel=1e-3)
    assert [record.loss for record in found] == pytest.approx([record.loss for record in expected], rel=0.03)
    best = max(record.validation_ndcg_at_10 for record in found)
    assert best == pytest.approx(max(record.validation_ndcg_at_10 for record in expected), abs=0.05)
    # The best weights have come back.
    assert validation_ndcg_at_10(together.model, validation_task(split)) == pytest.approx(best)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.usefixtures("cluster")
def test_what_another_try_would_meet_again_is_said_and_not_tried_again(tmp_path: Path) -> None:
    lonely = leave_one_out(interactions([[item] for item in range(N)]))
    failure = on_ray._train_on_worker({"job": [ray.put(job(lonely, tmp_path))]})
    assert failure == ("no user has two positive interactions", "next-item training needs sequences")


@pytest.mark.usefixtures("cluster")
def test_two_workers_recommend_what_one_process_does(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_ray, "USERS_A_SHARD", 7)  # more shards than workers, and a last one that is short
    alone, together = tmp_path / "alone.parquet", tmp_path / "together.parquet"
    command = ["recommend", "--model-dir", str(model_dir), "--k", "4", "--output"]
    for arguments in ([*command, str(alone)], [*command, str(together), "--engine", "ray", "--workers", "2"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code in {None, 0}
    assert pl.read_parquet(together).equals(pl.read_parquet(alone))
    assert "240 recommendations for 60 users" in capsys.readouterr().out


@pytest.mark.usefixtures("cluster")
def test_more_workers_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workers 3: the Ray cluster has 2 CPUs"):
        train_on_ray(job(leave_one_out(checkerboard(N)), tmp_path), 3, resume=False)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="needs Ray") as error:
        train_on_ray(job(leave_one_out(checkerboard(N)), tmp_path), 2, resume=False)
    assert error.value.hint == "pip install 'rec-engine[ray]'"


@pytest.mark.parametrize("arguments", [["--workers", "2"], ["--engine", "ray", "--workers", "0"]])
@pytest.mark.parametrize("command", ["train", "recommend"])
def test_workers_belong_to_ray_and_are_at_least_one(
    command: str, arguments: list[str], model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--model-dir", str(model_dir if command == "recommend" else tmp_path), *arguments])
    assert stopped.value.code == 3
    assert f"--workers {arguments[-1]}" in capsys.readouterr().err
