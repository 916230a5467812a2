"""`rec-engine models` as a user meets it."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import interactions_frame, tiny_config

from rec_engine import cli
from rec_engine.bundle import find_bundle, read_manifest, seal
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.errors import CheckError
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.pipeline.train import train
from rec_engine.registry import ModelRegistry, Shadow, read_shadow

ONE_EPOCH = tiny_config(training={"num_epochs": 1})
OLD, NEW = "20200101-000000-aaaaaa", "20990101-000000-bbbbbb"


@pytest.fixture
def registry(model_dir: Path, tmp_path: Path) -> ModelRegistry:
    """The trained version, and two copies of it: an old one that was current before, and a new one."""
    directory = tmp_path / "models"
    trained = find_bundle(model_dir)
    for name in (OLD, NEW, trained.name):
        shutil.copytree(trained, directory / name)
        seal(directory / name, read_manifest(trained).model_copy(update={"version": name}))
    registry = ModelRegistry(directory)
    for name in (OLD, trained.name):
        registry.promote(name)
    return registry


class Failed(Exception):
    """The command ended with another exit code than 0; its text is what it said to stderr."""


def run(capsys: pytest.CaptureFixture[str], registry: ModelRegistry, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["models", *arguments, "--model-dir", str(registry.model_dir)])
    shown = capsys.readouterr()
    if stopped.value.code in {1, 2, 3}:
        raise Failed(shown.out + shown.err)
    assert not stopped.value.code
    return re.sub(r"\s+", " ", shown.out)


def test_list_shows_what_is_current_and_what_to_do_next(
    registry: ModelRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    current = str(registry.current())
    (registry.model_dir / OLD / "items.parquet").unlink()
    shown = run(capsys, registry, "list")
    assert re.search(rf"{NEW} .*{current} .* current {OLD} .* before, damaged", shown)
    assert "(promotion): by hand" in shown
    assert f"{OLD} is damaged" in shown
    assert f"models promote {NEW} --model-dir {registry.model_dir} makes the newest one current" in shown
    registry.promote(NEW)
    registry.rollback()
    assert "Next: rec-engine serve" in run(capsys, registry, "list")


def test_promote_asks_the_gate_and_says_the_way_back(
    registry: ModelRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    current = str(registry.current())
    shown = run(capsys, registry, "promote", NEW, "--max-p99-ms", "10000")
    assert f"{NEW} passes" in shown
    assert f"returns to {current}" in shown
    assert registry.history()[-1].reason.startswith(f"{NEW} passes")
    assert "already" in run(capsys, registry, "promote", NEW)
    assert f"{current} is the current model again" in run(capsys, registry, "rollback", "--reason", "clicks fell")
    assert registry.history()[-1].reason == "clicks fell"


def test_what_the_gate_refuses_stays_out_unless_forced(
    registry: ModelRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    current = registry.current()
    with pytest.raises(Failed, match=r"(?s)does not pass.*--force"):
        run(capsys, registry, "promote", NEW, "--max-p99-ms", "0.001")
    assert registry.current() == current
    assert NEW not in registry.verdicts()  # found under limits that are not the service's
    assert "is the current model" in run(capsys, registry, "promote", NEW, "--force")
    assert registry.current() == NEW


def test_verify_names_what_is_damaged(registry: ModelRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    assert "3 verified, nothing to mend" in run(capsys, registry, "verify")
    (registry.model_dir / OLD / "items.parquet").write_bytes(b"damaged")
    with pytest.raises(Failed, match=rf"(?s)items.parquet: damaged.*{OLD} cannot be served"):
        run(capsys, registry, "verify")
    assert "1 verified" in run(capsys, registry, "verify", NEW)


def test_prune_says_what_is_gone(registry: ModelRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    current = str(registry.current())
    registry.promote(NEW)
    shown = run(capsys, registry, "prune", "--keep", "1")
    assert f"{OLD} is removed" in shown
    assert "versions left: 2" in shown
    assert {each.version for each in registry.versions()} == {NEW, current}
    with pytest.raises(Failed, match="keep"):
        run(capsys, registry, "prune")


def test_prune_leaves_what_an_arm_serves_until_its_experiment_is_stopped(
    registry: ModelRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.promote(NEW)
    with ABTestManager(store=f"sqlite:///{tmp_path / 'events.db'}") as manager:
        manager.create_experiment("old-model", "Old model", treatment={"model_version": OLD})
        manager.start_experiment("old-model")
        arguments = ("prune", "--keep", "1", "--store", manager.store_url)
        shown = run(capsys, registry, *arguments)
        assert f"{OLD} stays: arm treatment of old-model, which is running, serves it" in shown
        manager.stop_experiment("old-model")
    assert f"{OLD} is removed" in run(capsys, registry, *arguments)
    with pytest.raises(Failed, match="no such event store"):
        run(capsys, registry, "prune", "--keep", "1", "--store", f"sqlite:///{tmp_path / 'nothing.db'}")


def test_experiments_name_versions_that_there_are(
    registry: ModelRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, store = tmp_path / "plan.yaml", f"sqlite:///{tmp_path / 'events.db'}"

    def experiments(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["experiments", *arguments, "--store", store, "--model-dir", str(registry.model_dir)])
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), re.sub(r"\s+", " ", shown.out + shown.err)

    plan.write_text("treatment: {model_version: nowhere}\n")
    code, said = experiments("create", "old-model", "--definition", str(plan))
    assert (code, "there is no version 'nowhere'" in said, NEW in said, OLD in said) == (3, True, True, True)
    plan.write_text(f"treatment: {{model_version: {OLD}}}\n")
    assert experiments("create", "old-model", "--definition", str(plan))[0] == 0
    shutil.rmtree(registry.model_dir / OLD)
    code, said = experiments("start", "old-model")
    assert (code, f"no version '{OLD}'" in said) == (3, True)


def test_without_a_model_every_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = ModelRegistry(tmp_path / "nothing")
    for command in ("list", "verify"):
        assert "there is no trained model here" in run(capsys, empty, command)
    for arguments in (("promote", "v1"), ("promote", "v1", "--force"), ("rollback",)):
        with pytest.raises(Failed, match="there is no version"):
            run(capsys, empty, *arguments)
    assert not (tmp_path / "nothing").exists()


def test_training_publishes_without_promoting_when_the_gate_says_no(
    registry: ModelRegistry, dataset: RecommendationDataset
) -> None:
    current = registry.current()
    untrained = tiny_config(
        training={"num_epochs": 1, "learning_rate": 1e-6},
        model={"embedding_dim": 2, "tower_dims": [2]},
        ctr={"model_type": "none"},
    )
    worse = train(dataset, untrained, registry.model_dir, name="small world")
    assert not worse.is_current
    assert "does not pass, as its NDCG@10 is significantly worse" in worse.gate
    assert registry.current() == current
    assert registry.verify(worse.version).version == worse.version
    assert registry.verdicts()[worse.version].sentence == worse.gate
    with pytest.raises(CheckError, match="does not pass"):
        registry.promote(worse.version, must_have_passed=True)


def test_training_on_other_data_is_promoted_without_a_comparison(registry: ModelRegistry) -> None:
    elsewhere = interactions_frame().with_columns(pl.format("other-{}", "item_id").alias("item_id"))
    other = train(RecommendationDataset(elsewhere, None, None), ONE_EPOCH, registry.model_dir, name="other items")
    assert other.is_current
    assert "not compared" in registry.history()[-1].reason
    assert "no user or no item in common" in other.gate


def test_shadow_tries_a_version_until_it_is_stopped_and_prune_leaves_it(
    registry: ModelRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, registry, "shadow", NEW, "--share", "0.25")
    assert f"{NEW} is tried on 25% of the requests. Next: GET /models/shadow" in shown
    run(capsys, registry, "shadow", OLD)
    assert read_shadow(registry.model_dir) == Shadow(version=OLD, share=0.1)
    assert re.search(rf"{OLD} .* before, shadow", run(capsys, registry, "list"))
    registry.promote(NEW)
    run(capsys, registry, "prune", "--keep", "1")
    assert (registry.model_dir / OLD).is_dir()
    assert f"{OLD} is no longer tried" in run(capsys, registry, "shadow", "--stop")
    assert "no version was tried" in run(capsys, registry, "shadow", "--stop")
    for wrong in ([], [NEW, "--stop"], ["nowhere"], [NEW, "--share", "0"]):
        with pytest.raises(Failed):
            run(capsys, registry, "shadow", *wrong)
    assert read_shadow(registry.model_dir) is None
