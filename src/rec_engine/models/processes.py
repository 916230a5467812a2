"""The processes that train one model together: who is who, and what they tell each other.

torchrun or Ray Train starts them; each has the whole data and takes its share of every batch. One process alone is the
ordinary case: it is the first of one, tells nobody anything and waits for nobody.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from rec_engine.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0; the first one writes checkpoints and logs.
        count: how many there are.
        device: where tensors must lie to be exchanged.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def of_this_run(cls, device: torch.device) -> "Processes":
        """Return the processes whose group this one has joined; it alone where there is no group."""
        if not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def is_first(self) -> bool:
        """Whether this one speaks for all."""
        return self.rank == 0

    def sums(self, *values: float) -> list[float]:
        """Return the sum of each value over all processes, the same to the bit in all of them."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        dist.broadcast(tensor, src=0)
        total: list[float] = tensor.tolist()
        return total

    def check_alike(self, digest: str, what: str) -> None:
        """Refuse to go on where processes hold different things: they would train different models.

        Args:
            digest: hexadecimal, of what has to be alike.
            what: for the message.

        Raises:
            TrainingError: in every process, if they are not alike.
        """
        own = [float(int(digest[place : place + 12], 16)) for place in range(0, 48, 12)]
        if self.sums(*own) != [self.count * part for part in own]:
            raise TrainingError(
                f"the {self.count} processes do not have the same {what}",
                hint="start all of them with the same files, settings and version of the package, and with a model "
                "directory that all of them see",
            )


def is_follower() -> bool:
    """Return whether torchrun has started this process to help another one, which publishes what they train."""
    return _n_started() > 1 and int(os.environ.get("RANK", "0")) > 0


def local_gpu() -> int:
    """Return which of the machine's GPUs is this process' own."""
    return int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count())


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the group of processes that torchrun has started, and leave it together; nothing happens without one.

    Whoever is in a group already, as in a worker of Ray Train, stays in it.

    Args:
        device: `training.device`; processes speak NCCL on GPUs and gloo elsewhere.
    """
    if dist.is_initialized() or _n_started() == 1:
        yield
        return
    has_gpu = device != "cpu" and torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(local_gpu())
    dist.init_process_group("nccl" if has_gpu else "gloo")
    try:
        yield
        # Whoever leaves while others still listen to it takes them down.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _n_started() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
