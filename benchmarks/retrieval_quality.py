"""Two-tower retrieval beside every baseline and RecTools' SASRec: leave-one-out, full catalogue, all in one run.

    python benchmarks/retrieval_quality.py --data DIRECTORY [--peer-python PATH] [--peer-minutes 20] [--output FILE]

DIRECTORY holds interactions.parquet (or .csv), items.csv and users.csv in the custom-data layout. RecTools needs
another numpy than this package, so it runs in an environment of its own:
`python -m venv peer; peer/bin/pip install torch==2.13.0 'rectools[torch]==0.19.0'`, then
`--peer-python peer/bin/python`. Without it the peer is left out.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.console import Console

from rec_engine.data.data_loader import load_custom
from rec_engine.data.dataset import IntArray, Interactions, RecommendationDataset
from rec_engine.data.splits import leave_one_out
from rec_engine.evaluation.evaluator import (
    Evaluation,
    Recommender,
    Task,
    as_json,
    comparison_table,
    evaluate,
    rank_by_score,
    test_task,
    validation_task,
)
from rec_engine.models.training import TwoTowerTrainer, scorer
from rec_engine.pipeline.report import evaluate_baselines
from rec_engine.pipeline.train import build_model
from rec_engine.utils.config import ModelConfig, load_config
from rec_engine.utils.logger import configure_logging

PEER_SCRIPT = Path(__file__).parent / "peers" / "rectools_sasrec.py"
KS = (10, 20)
METRICS = ("ndcg@10", "hit_rate@10", "recall@20", "coverage@10")


def main() -> None:
    """Run everything and print the table."""
    configure_logging()
    arguments = _arguments()
    data: Path = arguments.data
    interactions = next(path for path in (data / "interactions.parquet", data / "interactions.csv") if path.exists())
    dataset = load_custom(interactions, data / "items.csv", data / "users.csv")
    split = leave_one_out(dataset.interactions)
    task = test_task(split)
    print(f"{data.name}: {dataset}; {split.name} split {split.fingerprint[:12]}; {machine()}", flush=True)

    evaluations = evaluate_baselines(split, task, dataset.n_items, KS)
    if arguments.peer_python:
        evaluations.append(evaluate_peer(arguments.peer_python, arguments.peer_minutes, dataset, task))
    config = load_config(ModelConfig, arguments.config)
    evaluations.append(evaluate_two_tower(config, dataset, validation_task(split), task))

    console = Console(width=150)
    console.print(comparison_table(evaluations, METRICS, f"{data.name}, {task.name}: {dataset.n_users:,} users"))
    for evaluation in evaluations:
        print(f"{evaluation.name}: fitted in {evaluation.fit_seconds:.0f} s")
    if arguments.output:
        report = {"machine": machine(), "commit": commit(), "split": split.fingerprint, "models": as_json(evaluations)}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def evaluate_two_tower(config: ModelConfig, dataset: RecommendationDataset, validation: Task, task: Task) -> Evaluation:
    """Return the towers alone, trained with early stopping on the validation items."""
    started = time.monotonic()
    model = build_model(dataset, config)
    TwoTowerTrainer(model, config.training).fit(validation.history, validation)
    fit_seconds = time.monotonic() - started
    recommend = rank_by_score(scorer(model, task.history, task.request_times()), task.history)
    return evaluate("two-tower", recommend, task, n_items=dataset.n_items, ks=KS, fit_seconds=fit_seconds)


def evaluate_peer(python: Path, minutes: float, dataset: RecommendationDataset, task: Task) -> Evaluation:
    """Return RecTools' SASRec, trained on the same interactions, on the same lists of seen items and targets."""
    with tempfile.TemporaryDirectory() as folder:
        known, found = Path(folder) / "known.csv", Path(folder) / "found.csv"
        _as_table(task.history).write_csv(known)
        started = time.monotonic()
        command = [
            str(python),
            str(PEER_SCRIPT),
            str(known),
            str(found),
            "--minutes",
            str(minutes),
            "--k",
            str(max(KS)),
        ]
        subprocess.run(command, check=True)
        fit_seconds = time.monotonic() - started
        ranked = np.full((dataset.n_users, max(KS)), -1, dtype=np.int32)
        lists = pl.read_csv(found)
        ranked[lists["user"].to_numpy(), lists["rank"].to_numpy() - 1] = lists["item"].to_numpy()
    name, recommend = "RecTools SASRec", _of_lists(ranked)
    return evaluate(name, recommend, task, n_items=dataset.n_items, ks=KS, fit_seconds=fit_seconds)


def machine() -> str:
    """Return what the figures were measured on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__} on {torch.get_num_threads()} threads"
    )


def commit() -> str:
    """Return the commit of the working tree."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    return found.stdout.strip()


def _as_table(history: Interactions) -> pl.DataFrame:
    """Return user, item, place in the history, and whether the row is the user's last (the validation item)."""
    place = np.arange(len(history)) - np.repeat(history.starts[:-1], np.diff(history.starts))
    return pl.DataFrame({"user": history.user_codes, "item": history.item_codes, "place": place})


def _of_lists(ranked: IntArray) -> Recommender:
    return lambda user_codes, k: ranked[user_codes, :k]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/ml_1m.yaml"))
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--peer-minutes", type=float, default=20.0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
