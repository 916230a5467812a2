"""What training costs alone and on two processes, and what that makes of a large shop.

    OMP_NUM_THREADS=1 python benchmarks/distributed.py
    OMP_NUM_THREADS=1 python benchmarks/distributed.py --model-dir models --price 0.04

Every measurement runs in processes of its own, on simulated histories whose content does not matter for what they cost.
Seconds of CPU hold on a busy machine; those of the clock, and so the ratio of two processes to one, on a quiet one.
The plan multiplies what was measured here, with the models' default settings; nothing in it was measured at its size.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.distributed as dist

from rec_engine.bundle import open_bundle
from rec_engine.data.dataset import Interactions, RecommendationDataset
from rec_engine.models.batches import epoch_batches, windows
from rec_engine.models.next_item import loss_of
from rec_engine.models.processes import Processes, joined
from rec_engine.models.steps import Steps
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.pipeline.batch import recommendations
from rec_engine.serving.inference import RecommendationInference
from rec_engine.utils.config import ModelSettings, RecommendationSettings, TrainingSettings

TARGETS, BATCH_SIZE = 50, 64
FEW_ITEMS, MANY_ITEMS = 1_000, 101_000
ROWS, USERS_ASKED = 2_000_000, 500
GIB, HOUR = 2**30, 3600
Found = dict[str, float]


def train(n_items: int, n_steps: int, *, n_targets: int, n_blocks: int, recomputes: bool, precision: str) -> Found:
    """Take some steps as one of the processes that torchrun started, and return what a step took.

    The memory is what steps need beside the process and its libraries, weights and data.
    """
    chosen = TrainingSettings.model_validate(
        {"loss": "sampled", "batch_size": BATCH_SIZE, "device": "cpu", "mixed_precision": precision}
    )
    with joined("cpu"):
        processes = Processes.of_this_run(torch.device("cpu"))
        rng = np.random.default_rng(0)
        past = _histories(BATCH_SIZE * (n_steps + 2), n_targets + 1, n_items, rng)
        model = TwoTowerModel(past.n_users, n_items, **ModelSettings(n_blocks=n_blocks).model_dump()).train()
        model.encoder.recomputes = recomputes
        optimizer = torch.optim.AdamW(model.parameters())
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        steps = Steps(loss_of(model, past, chosen), optimizer, scaler, chosen, processes)
        pieces = windows(past, model.max_history_len)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for place, batch in enumerate(
            epoch_batches(pieces, BATCH_SIZE, rng, rank=processes.rank, n_ranks=processes.count)
        ):
            if place == 2:  # noqa: PLR2004 - the first two warm up
                clock, cpu = time.perf_counter(), time.process_time()
            steps.add(batch, rng, n_batches=1, is_last=True)
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
        if dist.is_initialized():
            cpu_seconds = processes.sums(cpu_seconds)[0]
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"seconds": seconds / n_steps, "cpu": cpu_seconds / n_steps, "peak_bytes": peak}


def _histories(n_users: int, history_len: int, n_items: int, rng: np.random.Generator) -> Interactions:
    n = n_users * history_len
    return Interactions(
        item_codes=rng.integers(0, n_items, n, dtype=np.int32),
        timestamps=np.arange(n, dtype=np.int64) * 3_600,
        events=np.ones(n, dtype=np.uint8),
        values=np.full(n, np.nan, dtype=np.float32),
        weights=np.ones(n, dtype=np.float32),
        starts=np.arange(n_users + 1, dtype=np.int64) * history_len,
    )


def load() -> Found:
    """Return what an interaction takes to become part of a dataset: CPU, and memory at its peak."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(0, ROWS // 50, ROWS),
            "item_id": rng.integers(0, ROWS // 1_000, ROWS),
            "timestamp": 1_600_000_000 + rng.integers(0, 10**8, ROWS),
        }
    )
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.process_time()
    dataset = RecommendationDataset(frame)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    n = len(dataset.interactions)
    return {"cpu": (time.process_time() - cpu) / n, "bytes": peak / n}


def ask(model_dir: Path) -> Found:
    """Return the CPU that a user's recommendations take."""
    bundle = open_bundle(model_dir)
    inference, ids = RecommendationInference.of(bundle, RecommendationSettings()), bundle.user_ids.ids.to_list()
    recommendations(inference, bundle, ids[:20], 10)
    cpu = time.process_time()
    recommendations(inference, bundle, ids[:USERS_ASKED], 10)
    return {"cpu": (time.process_time() - cpu) / min(USERS_ASKED, len(ids)), "n_items": len(bundle.item_ids)}


def measured(part: str, *flags: str, n_processes: int = 1) -> Found:
    """Return what a part of this file found in processes of its own."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    command = [sys.executable, *(launch if n_processes > 1 else []), __file__, "--part", part, *flags]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Found = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure, print the ratios, and then the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000_000)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--interactions", type=int, default=1_000_000_000)
    parser.add_argument("--epochs", type=int, default=10, help="as many as it takes: 10 is a supposition")
    parser.add_argument("--batch-size", type=int, default=65_536, help="histories a step of all processes")
    parser.add_argument("--price", type=float, help="of a core for an hour, in your currency")
    parser.add_argument("--model-dir", type=Path, help="a model whose answers are measured too")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--part", choices=("train", "load", "ask"), help=argparse.SUPPRESS)
    parser.add_argument("--train-items", type=int, default=FEW_ITEMS, help=argparse.SUPPRESS)
    parser.add_argument("--targets", type=int, default=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--blocks", type=int, default=ModelSettings().n_blocks, help=argparse.SUPPRESS)
    parser.add_argument("--recomputes", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="none", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        parts: dict[str, Callable[[], Found]] = {
            "train": lambda: train(
                chosen.train_items,
                chosen.steps,
                n_targets=chosen.targets,
                n_blocks=chosen.blocks,
                recomputes=chosen.recomputes,
                precision=chosen.precision,
            ),
            "load": load,
            "ask": lambda: ask(chosen.model_dir),
        }
        found = parts[chosen.part]()
        if int(os.environ.get("RANK", "0")) == 0:
            print(json.dumps(found))
        return
    plan(chosen, *ratios(chosen.steps))


def ratios(n_steps: int) -> tuple[Found, Found]:
    """Print how runs compare with one process that trains on few items; return it and the one on many items."""
    steps, many = ("--steps", str(n_steps)), ("--train-items", str(MANY_ITEMS))
    deep = ("--steps", "2", "--targets", "200", "--blocks", "8")
    base = measured("train", *steps)
    large = measured("train", *steps, *many)
    rows = {
        f"one process, {FEW_ITEMS:,} items": base,
        "two processes": measured("train", *steps, n_processes=2),
        "gradient_checkpointing": measured("train", *steps, "--recomputes"),
        "8 blocks, 200 targets": measured("train", *deep),
        "8 blocks, 200 targets, checkpointing": measured("train", *deep, "--recomputes"),
        "mixed_precision: bf16": measured("train", *steps, "--precision", "bf16"),
        f"one process, {MANY_ITEMS:,} items": large,
        f"two processes, {MANY_ITEMS:,} items": measured("train", *steps, *many, n_processes=2),
    }
    print(f"a step of {BATCH_SIZE} histories of {TARGETS} targets; in brackets: times the first line")
    for name, row in rows.items():
        cells = [f"{row[key]:8.2f} ({row[key] / base[key]:5.2f})" for key in ("seconds", "cpu")]
        peak = f"{row['peak_bytes'] / GIB:6.2f} ({row['peak_bytes'] / base['peak_bytes']:5.2f})"
        print(f"{name:36} {cells[0]} s by the clock {cells[1]} s of CPU {peak} GiB of each process at the peak")
    return base, large


def plan(chosen: argparse.Namespace, base: Found, large: Found) -> None:
    """Print what a shop takes, each line from a unit cost above."""
    loading, dim = measured("load"), ModelSettings().embedding_dim
    a_target = base["cpu"] / (BATCH_SIZE * TARGETS)
    an_item = (large["cpu"] - base["cpu"]) / (MANY_ITEMS - FEW_ITEMS)
    n_steps = chosen.epochs * chosen.users / chosen.batch_size
    table = chosen.items * dim * 4
    hours = {
        f"load: {loading['cpu'] * 1e6:.2f} us an interaction": (loading["cpu"] * chosen.interactions / HOUR),
        f"train: {a_target * 1e6:.0f} us a target, {chosen.epochs} epochs": (
            a_target * (chosen.interactions - chosen.users) * chosen.epochs / HOUR
        ),
    }
    if chosen.model_dir:
        asked = measured("ask", "--model-dir", str(chosen.model_dir))
        name = f"recommend: {asked['cpu'] * 1e3:.2f} ms a user, with {asked['n_items']:,.0f} items"
        hours[name] = asked["cpu"] * chosen.users / HOUR
    print(f"\n{chosen.interactions:,} interactions, {chosen.users:,} users, {chosen.items:,} items, computed:")
    for name, core_hours in hours.items():
        price = f", {core_hours * chosen.price:,.0f} at {chosen.price} a core-hour" if chosen.price else ""
        print(f"  {name}: {core_hours:,.1f} core-hours{price}")
    hours_each = an_item * chosen.items * n_steps / HOUR
    print(
        f"  train: {an_item * 1e6:.2f} us an item a step, {n_steps:,.0f} steps: {hours_each:,.0f} hours of EACH process"
    )
    whole = loading["bytes"] * chosen.interactions / GIB
    print(f"  memory to load one table: {whole:,.0f} GiB at the peak; larger_than_memory.py measures shards")
    print(f"  memory of item ids' embeddings with gradient and moments, each process: {4 * table / GIB:,.0f} GiB")
    print(f"  gradient of these sent and received a step, each process: {2 * table / GIB:,.1f} GiB")
    print("  a GPU's unit costs were not measured: none was at hand")


if __name__ == "__main__":
    main()
