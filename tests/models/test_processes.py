"""Two processes take the steps that one takes, and agree on everything."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import two_processes
from worlds import checkerboard

from rec_engine.data.splits import leave_one_out

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    directory = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(TESTS), str(TESTS / "models"), *sys.path])
    subprocess.run(
        [*launch, two_processes.__file__, str(directory)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert (directory / "checkpoint.safetensors").exists()
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_averaged_gradient_of_shares_is_that_of_the_whole_batch(found: list[dict[str, Any]], loss: str) -> None:
    split = leave_one_out(checkerboard(two_processes.N))
    alone = np.array(two_processes.gradients_of_an_epoch(split, two_processes.settings(loss=loss)))
    for process in found:
        assert np.abs(np.array(process["gradients"][loss]) - alone).max() < 1e-6


def test_both_end_with_the_same_weights_losses_and_decisions(found: list[dict[str, Any]]) -> None:
    for run in ("trained", "stopped early", "accumulated", "16 bits"):
        assert found[0][run] == found[1][run], run


def test_an_epoch_alone_costs_and_reaches_the_same(found: list[dict[str, Any]]) -> None:
    alone = two_processes.trained(leave_one_out(checkerboard(two_processes.N)), num_epochs=2)
    together = found[0]["trained"]
    assert together["losses"] == pytest.approx(alone["losses"], rel=0.02)
    assert together["validation"] == pytest.approx(alone["validation"], abs=0.05)


def test_waiting_ends_for_both_at_once(found: list[dict[str, Any]]) -> None:
    reached = found[0]["stopped early"]["validation"]
    assert len(reached) == min(30, int(np.argmax(reached)) + 1 + 2)


def test_who_has_other_settings_is_told_in_all_processes(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert "2 processes do not have the same data, settings and checkpoint" in process["complaint"]


def test_only_the_first_process_publishes(found: list[dict[str, Any]]) -> None:
    assert [process["is_follower"] for process in found] == [False, True]
