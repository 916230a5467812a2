"""What training takes of memory when interactions come as one table, and when they come as Parquet shards.

    OMP_NUM_THREADS=1 python benchmarks/larger_than_memory.py

Both load the same simulated rows, split them and train some steps, each in a process of its own: first as they like,
then with a limit. Memory is what a process has for itself (RssAnon); pages of files are the kernel's, which takes them
back whenever it needs them. The limit is RLIMIT_DATA, which counts just such memory, reserved or in use.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import torch

from rec_engine.data.data_loader import load_custom
from rec_engine.data.dataset import Interactions, RecommendationDataset
from rec_engine.data.shards import shards_of
from rec_engine.data.splits import leave_one_out
from rec_engine.models.batches import epoch_batches, windows
from rec_engine.models.next_item import loss_of
from rec_engine.models.processes import Processes
from rec_engine.models.steps import Steps
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import ModelSettings, TrainingSettings

SHARD_ROWS = 1_000_000
BATCH_SIZE = 64
MIB = 2**20
BYTES_A_ROW = 4 + 8 + 1 + 4 + 4
TABLE, SHARDS = "one table", "shards"


@dataclass(frozen=True, slots=True)
class Found:
    """What a process has found: memory of its own, when it begins, to load and in all, and CPU."""

    begin_bytes: int
    load_bytes: int
    peak_bytes: int
    load_seconds: float
    result: str


def write_shards(folder: Path, n_rows: int, n_users: int, n_items: int) -> None:
    """Write interactions in no order, of users and items of whom some have far more than others."""
    rng = np.random.default_rng(0)
    for first in range(0, n_rows, SHARD_ROWS):
        n = min(SHARD_ROWS, n_rows - first)
        pl.DataFrame(
            {
                "user_id": (n_users * rng.random(n) ** 1.5).astype(np.int64),
                "item_id": (n_items * rng.random(n) ** 3).astype(np.int64),
                "timestamp": 1_600_000_000 + rng.integers(0, 10**8, n),
            }
        ).write_parquet(folder / f"part-{first // SHARD_ROWS:05}.parquet")


class Peak:
    """The most memory of its own that this process has had since it was asked for."""

    def __init__(self) -> None:
        self.n_bytes = self.begin_bytes = _own_bytes()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.n_bytes = max(self.n_bytes, _own_bytes())
            time.sleep(0.01)


def _own_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def run(kind: str, folder: Path, n_steps: int, limit_mib: int) -> Found:
    """Load, split and train; the result tells whether two runs did the same."""
    if limit_mib:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_mib * MIB, limit_mib * MIB))
    peak, before = Peak(), time.process_time()
    if kind == SHARDS:
        dataset = load_custom(folder, scratch=folder.parent)
    else:
        dataset = RecommendationDataset(pl.concat([pl.read_parquet(shard) for shard in shards_of(folder)]))
    load_seconds, load_bytes = time.process_time() - before, peak.n_bytes
    split = leave_one_out(dataset.interactions)
    loss = train(split.train, dataset.n_users, dataset.n_items, n_steps)
    result = f"data {dataset.fingerprint[:8]}, split {split.fingerprint[:8]}, loss {loss:.6f}"
    return Found(peak.begin_bytes, load_bytes, peak.n_bytes, load_seconds, result)


def train(past: Interactions, n_users: int, n_items: int, n_steps: int) -> float:
    """Take some steps as training takes them, and return the last loss."""
    torch.manual_seed(0)
    chosen = TrainingSettings.model_validate({"loss": "sampled", "batch_size": BATCH_SIZE, "device": "cpu"})
    model = TwoTowerModel(n_users, n_items, **ModelSettings().model_dump()).train()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    steps = Steps(loss_of(model, past, chosen), torch.optim.AdamW(model.parameters()), scaler, chosen, Processes())
    rng = np.random.default_rng(0)
    pieces = windows(past.positive(), model.max_history_len)
    batches = islice(epoch_batches(pieces, BATCH_SIZE, rng), n_steps)
    return [steps.add(batch, rng, n_batches=1, is_last=True) for batch in batches][-1]


def measured(kind: str, folder: Path, n_steps: int, limit_mib: int) -> Found | None:
    """Return what a run in a process of its own has found, None if it ran out of memory."""
    flags = ["--part", kind, "--folder", str(folder), "--steps", str(n_steps), "--limit-mib", str(limit_mib)]
    done = subprocess.run([sys.executable, __file__, *flags], check=False, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        print(f"  {kind} with {limit_mib} MiB ends with {done.returncode}: {last[0][:100]}", flush=True)
        return None
    return Found(**json.loads(done.stdout))


def main() -> None:
    """Write shards, run both ways with and without the limit, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--limit-mib", type=int, default=3_072)
    parser.add_argument("--shards-only", action="store_true", help="with the limit, where a table does not fit at all")
    parser.add_argument("--folder", type=Path, default=None, help="a disk with room: 100 bytes an interaction")
    parser.add_argument("--part", choices=(TABLE, SHARDS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        print(json.dumps(asdict(run(chosen.part, chosen.folder, chosen.steps, chosen.limit_mib))))
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as work:
        folder = Path(work) / "events"
        folder.mkdir()
        write_shards(folder, chosen.interactions, chosen.users, chosen.items)
        compare(folder, chosen)


def compare(folder: Path, chosen: argparse.Namespace) -> None:
    """Print a line for each way and limit, the table without a limit first."""
    n, arrays = chosen.interactions, chosen.interactions * BYTES_A_ROW / MIB
    print(f"{n:,} interactions: the arrays of the dataset are {arrays:,.0f} MiB, as many again those of its parts")
    limits = [chosen.limit_mib] if chosen.shards_only else [0, chosen.limit_mib]
    kinds = [SHARDS] if chosen.shards_only else [TABLE, SHARDS]
    first: Found | None = None
    for kind, limit in [(kind, limit) for limit in limits for kind in kinds]:
        found = measured(kind, folder, chosen.steps, limit)
        if not found:
            continue
        first = first or found
        n_bytes, us = (found.load_bytes - found.begin_bytes) / n, found.load_seconds / n * 1e6
        print(
            f"  {kind:10} {f'{limit:,} MiB' if limit else 'no limit':10} {found.begin_bytes / MIB:4,.0f} MiB at first,"
            f" {found.load_bytes / MIB:6,.0f} to load, {found.peak_bytes / MIB:6,.0f} in all"
            f" ({found.peak_bytes / first.peak_bytes:4.2f}); to load an interaction {n_bytes:5.1f} bytes and"
            f" {us:4.2f} us of CPU ({found.load_seconds / first.load_seconds:4.2f}); {found.result}",
            flush=True,
        )


if __name__ == "__main__":
    main()
