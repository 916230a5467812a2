"""Everything a training run needs to go on where it stopped, in one safetensors file (nothing is pickled)."""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rec_engine.errors import TrainingError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.models.two_tower import TwoTowerModel


@dataclass(slots=True)
class TrainingState:
    """A run between two epochs.

    Attributes:
        run: names data and settings; a checkpoint of another run is refused.
        model: the weights after the last epoch.
        optimizer: its moments.
        scaler: of the gradients, where they are computed in fp16.
        records: one an epoch.
        best: the weights of the best epoch.
    """

    run: str
    model: TwoTowerModel
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    records: list[EpochRecord] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_record(self) -> EpochRecord | None:
        """The epoch with the highest validation NDCG@10, the earlier of equals; None before the first.

        Where there was nobody to validate on (nan), the latest epoch.
        """
        measured = [record for record in self.records if not math.isnan(record.validation_ndcg_at_10)]
        if not measured:
            return self.records[-1] if self.records else None
        return max(measured, key=lambda record: record.validation_ndcg_at_10)

    def keep_if_best(self) -> None:
        """Copy the weights if the last epoch is the best so far."""
        if self.best_record is self.records[-1]:
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write the state under a temporary name and move it into place, so that a crash leaves the older one whole."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for row, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{row}.{name}": tensor for name, tensor in moments.items()}
    metadata = {
        "run": state.run,
        "records": json.dumps([asdict(record) for record in state.records]),
        "scaler": json.dumps(state.scaler.state_dict()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata=metadata)
    os.replace(partial, path)


def load_checkpoint(path: Path, state: TrainingState) -> None:
    """Bring a fresh state to where the checkpoint was.

    Raises:
        TrainingError: if the file is damaged or belongs to another run.
    """
    metadata, tensors = _read(path, "")
    if metadata["run"] != state.run:
        raise TrainingError(
            f"{path}: the checkpoint is of other data or settings", hint="train without --resume to start anew"
        )
    state.records = [EpochRecord(**record) for record in json.loads(metadata["records"])]
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(json.loads(metadata["scaler"]))
    state.best = _below(tensors, "best.")
    state.model.load_state_dict(_below(tensors, "model."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        row, _, moment = name.partition(".")
        moments.setdefault(int(row), {})[moment] = tensor
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})


def load_best(path: Path, model: TwoTowerModel) -> list[EpochRecord]:
    """Put the weights of the best epoch into a model of the same run and return the epochs' records.

    Raises:
        TrainingError: if the file is damaged or not there.
    """
    metadata, tensors = _read(path, "best.")
    model.load_state_dict(_below(tensors, "best."))
    model.eval()
    return [EpochRecord(**record) for record in json.loads(metadata["records"])]


def _read(path: Path, prefix: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return what a checkpoint says of itself, and its tensors whose names begin like this."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a dict
            return file.metadata(), {name: file.get_tensor(name) for name in names}
    except (SafetensorError, FileNotFoundError) as error:
        raise TrainingError(f"{path}: not a readable checkpoint ({error})", hint="delete it to start anew") from None


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
