"""Steps of the optimiser: of one process or many, in 32 or 16 bits, of one batch or several."""

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rec_engine.errors import TrainingError
from rec_engine.models.batches import Batch
from rec_engine.models.next_item import NextItemLoss
from rec_engine.models.processes import Processes
from rec_engine.utils.config import TrainingSettings

MAX_GRADIENT_NORM = 1.0
BITS = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Steps:
    """Adds up the gradients of batches and moves the weights.

    Args:
        loss: of a batch; its model is what is trained.
        optimizer: moves the model's weights.
        scaler: of gradients, which 16 bits might lose otherwise; one that is not enabled changes nothing.
        settings: the `training:` section.
        processes: those that share each batch; their gradients are averaged before each step.
    """

    def __init__(
        self,
        loss: NextItemLoss,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        settings: TrainingSettings,
        processes: Processes,
    ) -> None:
        self.optimizer, self.scaler, self.settings, self.processes = optimizer, scaler, settings, processes
        self.model = loss.model
        self.device = loss.model.item_embedding.weight.device
        self.loss = loss if processes.count == 1 else _shared(loss)

    def add(self, batch: Batch, rng: np.random.Generator, *, n_batches: int, is_last: bool) -> float:
        """Add a batch's gradients to those of the step and return the mean loss over all processes.

        Args:
            batch: this process' share.
            rng: of negatives and hidden clocks, in the same state in all processes.
            n_batches: of the step.
            is_last: whether it is the last of them: then the weights move.

        Raises:
            TrainingError: in all processes, if the loss is not finite in one of them.
        """
        with self._exchange(is_wanted=is_last):
            loss = self._loss(batch, rng)
            (mean,) = self.processes.sums(loss.item() / self.processes.count)
            if not math.isfinite(mean):
                raise TrainingError(f"the loss became {mean}", hint="lower training.learning_rate")
            self.scaler.scale(loss / n_batches).backward()  # type: ignore[no-untyped-call]
        if is_last:
            self._move()
        return mean

    def _loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        precision = self.settings.mixed_precision
        with torch.autocast(self.device.type, dtype=BITS[precision], enabled=precision != "none"):
            loss: Tensor = self.loss(batch, rng) * batch.weight
            return loss

    def _exchange(self, *, is_wanted: bool) -> AbstractContextManager[None]:
        """Return a context in which gradients are averaged over the processes, or in which they only add up."""
        if is_wanted or not isinstance(self.loss, DistributedDataParallel):
            return nullcontext()
        waits: AbstractContextManager[None] = self.loss.no_sync()
        return waits

    def _move(self) -> None:
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def _shared(loss: NextItemLoss) -> DistributedDataParallel:
    """Return the loss under DDP, which sends the first process' weights to all and averages their gradients."""
    for weight in loss.parameters():
        # What has no numbers gets no gradient, and DDP would wait for it.
        weight.requires_grad_(weight.numel() > 0)
    return DistributedDataParallel(loss, forward_sync_buffers=False)
