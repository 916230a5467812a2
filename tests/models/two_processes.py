"""What each of two processes does in `test_processes.py`; torchrun starts them, each writes what it found as JSON."""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from worlds import checkerboard

from rec_engine.data.splits import Split, leave_one_out
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models.batches import epoch_batches, windows
from rec_engine.models.next_item import loss_of
from rec_engine.models.processes import Processes, is_follower, joined
from rec_engine.models.steps import Steps
from rec_engine.models.training import TwoTowerTrainer
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import TrainingSettings

N = 40


def settings(**changes: object) -> TrainingSettings:
    """Return settings under which a step does not depend on who takes it."""
    wanted = {"batch_size": 7, "num_epochs": 3, "learning_rate": 0.01, "device": "cpu", "n_negatives": 30}
    return TrainingSettings.model_validate(wanted | changes)


def model() -> TwoTowerModel:
    """Return towers without dropout."""
    torch.manual_seed(0)
    return TwoTowerModel(N, N, 16, [16], dropout=0.0, temperature=0.1, n_blocks=1, max_history_len=12)


def gradients_of_an_epoch(split: Split, chosen: TrainingSettings) -> list[float]:
    """Return the gradient of each batch of an epoch, one after the other; the weights do not move."""
    processes = Processes.of_this_run(torch.device("cpu"))
    towers = model()
    optimizer = torch.optim.SGD(towers.parameters(), lr=0.0)
    steps = Steps(
        loss_of(towers, split.train, chosen), optimizer, torch.amp.GradScaler("cpu", enabled=False), chosen, processes
    )
    found: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: found.append(flat_gradient(towers)))
    rng = np.random.default_rng(3)
    # 40 windows in batches of 13 leave one window for the last: one process has nothing to do.
    pieces = windows(split.train, 12)
    for batch in epoch_batches(pieces, 13, rng, rank=processes.rank, n_ranks=processes.count):
        steps.add(batch, rng, n_batches=1, is_last=True)
    gradients: list[float] = torch.cat(found).tolist()
    return gradients


def flat_gradient(towers: TwoTowerModel) -> torch.Tensor:
    """Return (n_weights,) float32."""
    return torch.cat([weight.grad.ravel() for weight in towers.parameters() if weight.grad is not None])


def trained(
    split: Split, checkpoint: Path | None = None, *, resume: bool = False, **changes: object
) -> dict[str, object]:
    """Return what a training run ends with."""
    towers = model()
    trainer = TwoTowerTrainer(towers, settings(**changes), checkpoint=checkpoint)
    records = trainer.fit(split.train, validation_task(split), resume=resume)
    weights = b"".join(tensor.numpy().tobytes() for tensor in towers.state_dict().values())
    return {
        "losses": [record.loss for record in records],
        "validation": [record.validation_ndcg_at_10 for record in records],
        "weights": hashlib.sha256(weights).hexdigest(),
    }


def complaint_about_other_data(split: Split, rank: int) -> str:
    """Return what is said where each process has a seed of its own."""
    try:
        trained(split, seed=rank)
    except TrainingError as error:
        return str(error)
    return ""


def main(directory: Path) -> None:
    """Write `<rank>.json`."""
    split = leave_one_out(checkerboard(N))
    rank = int(os.environ["RANK"])
    with joined("cpu"):
        found = {
            "is_follower": is_follower(),
            "gradients": {loss: gradients_of_an_epoch(split, settings(loss=loss)) for loss in ("full", "sampled")},
            "trained": trained(split, directory / "checkpoint.safetensors", num_epochs=2),
            "stopped early": trained(split, num_epochs=30, early_stopping_patience=2),
            "accumulated": trained(split, gradient_accumulation=3, num_epochs=2),
            "16 bits": trained(split, mixed_precision="bf16", gradient_checkpointing=True, num_epochs=2),
            "complaint": complaint_about_other_data(split, rank),
        }
    (directory / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
