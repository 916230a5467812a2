"""What the settings of a step change, and what they must not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import checkerboard

from rec_engine.data.splits import Split, leave_one_out
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models import steps as steps_module
from rec_engine.models.batches import Batch, epoch_batches, windows
from rec_engine.models.next_item import loss_of
from rec_engine.models.processes import Processes
from rec_engine.models.steps import Steps
from rec_engine.models.training import TwoTowerTrainer, validation_ndcg_at_10
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import TrainingSettings

N = 40
SETTINGS = {"batch_size": 8, "num_epochs": 8, "learning_rate": 0.01, "device": "cpu", "warmup_steps": 5}


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.model_validate(SETTINGS | changes)


def model(encoder: str = "hstu", dropout: float = 0.0) -> TwoTowerModel:
    torch.manual_seed(0)
    return TwoTowerModel(
        N, N, 16, [16], dropout=dropout, temperature=0.5, user_encoder=encoder, n_blocks=2, max_history_len=12
    )


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(checkerboard(N))


def batches(split: Split, n: int) -> Iterator[Batch]:
    rng = np.random.default_rng(1)
    for _, batch in zip(range(n), epoch_batches(windows(split.train, 12), 8, rng), strict=False):
        yield batch


def gradient(towers: TwoTowerModel, split: Split, wanted: list[Batch], **changes: object) -> torch.Tensor:
    """Return (n_weights,) float32, the gradient with which one step over these batches moves the weights."""
    chosen = settings(**changes)
    optimizer = torch.optim.SGD(towers.parameters(), lr=0.0)
    found: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: found.append(flat_gradient(towers)))
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=chosen.mixed_precision == "fp16")
    steps = Steps(loss_of(towers, split.train, chosen), optimizer, scaler, chosen, Processes())
    towers.train()
    towers.encoder.recomputes = chosen.gradient_checkpointing
    rng = np.random.default_rng(2)
    torch.manual_seed(5)
    for place, batch in enumerate(wanted):
        steps.add(batch, rng, n_batches=len(wanted), is_last=place + 1 == len(wanted))
    (only,) = found
    return only


def flat_gradient(towers: TwoTowerModel) -> torch.Tensor:
    return torch.cat([weight.grad.ravel() for weight in towers.parameters() if weight.grad is not None])


def test_accumulated_gradient_is_the_mean_of_those_of_the_batches(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "MAX_GRADIENT_NORM", 1e9)
    wanted = list(batches(split, 4))
    towers = model("mean")
    together = gradient(towers, split, wanted)
    # "mean" draws hidden clocks too, but reads none: one batch's gradient does not depend on what came before it.
    alone = torch.stack([gradient(model("mean"), split, [batch]) for batch in wanted])
    torch.testing.assert_close(together, alone.mean(dim=0), rtol=0, atol=1e-6)
    assert (together - alone[0]).abs().max() > 1e-4


@pytest.mark.parametrize("encoder", ["hstu", "sasrec", "mean"])
def test_recomputing_changes_no_gradient(split: Split, encoder: str) -> None:
    wanted = list(batches(split, 2))
    kept = gradient(model(encoder, dropout=0.3), split, wanted)
    recomputed = gradient(model(encoder, dropout=0.3), split, wanted, gradient_checkpointing=True)
    torch.testing.assert_close(recomputed, kept, rtol=0, atol=1e-6)


def test_recomputing_keeps_less(split: Split) -> None:
    wanted = list(batches(split, 1))
    kept: dict[bool, int] = {}
    for flag in (False, True):
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            gradient(model(), split, wanted, gradient_checkpointing=flag)
        kept[flag] = sum(sizes)
    assert kept[True] < 0.7 * kept[False]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradient_of_16_bits_points_the_same_way(split: Split, precision: str) -> None:
    wanted = list(batches(split, 2))
    exact = gradient(model(), split, wanted)
    rough = gradient(model(), split, wanted, mixed_precision=precision)
    assert torch.cosine_similarity(exact, rough, dim=0) > 0.999
    assert not torch.equal(exact, rough)
    assert rough.norm() == pytest.approx(float(exact.norm()), rel=0.02)  # the scale was taken off again


def reached(split: Split, precision: str) -> float:
    towers = model(dropout=0.1)
    TwoTowerTrainer(towers, settings(mixed_precision=precision)).fit(split.train, validation_task(split))
    assert towers.item_embedding.weight.dtype == torch.float32
    return validation_ndcg_at_10(towers, validation_task(split))


def test_training_in_16_bits_learns_as_much(split: Split) -> None:
    exact = reached(split, "none")
    assert exact > 0.5
    assert reached(split, "bf16") == pytest.approx(exact, abs=0.1)
    assert reached(split, "fp16") == pytest.approx(exact, abs=0.1)


def test_resumed_run_in_fp16_knows_its_scale(split: Split, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    fp16 = {"mixed_precision": "fp16", "early_stopping_patience": 1}
    whole = model()
    records = TwoTowerTrainer(whole, settings(**fp16), checkpoint=checkpoint).fit(split.train, validation_task(split))
    assert len(records) < 8  # so resuming has nothing left to do but to read
    resumed = model()
    trainer = TwoTowerTrainer(resumed, settings(**fp16), checkpoint=checkpoint)
    state = trainer._start(split.train, resume=True)
    assert state.scaler.get_scale() > 0
    assert state.scaler.state_dict()["_growth_tracker"] > 0
    assert trainer.fit(split.train, validation_task(split), resume=True) == records


def test_steps_of_several_batches_are_fewer(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(Steps, "_move", lambda self: taken.append(self))
    TwoTowerTrainer(model("mean"), settings(num_epochs=1, batch_size=1, gradient_accumulation=3)).fit(
        split.train, validation_task(split)
    )
    assert len(taken) == -(-len(windows(split.train, 12)) // 3)
