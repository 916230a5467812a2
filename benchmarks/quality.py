"""The protocols P1 to P7 for every model: full catalogue, the same splits, one process a model, resumable.

    python benchmarks/quality.py --data DIRECTORY [--protocols P1 P2] [--models ...] [--seeds 0 1 2]
                                 [--peer-python peer/bin/python --peer-minutes 40] [--results FOLDER]

DIRECTORY holds the folders ml-1m, amazon-beauty and online-retail. What has been measured lies in FOLDER and is not
measured again; `--table` only prints it. RecTools needs another numpy than this package, so it runs in an environment
of its own: `python -m venv peer; peer/bin/pip install torch==2.13.0 'rectools[torch]==0.19.0'`. Without --peer-python
its models are left out; without the package implicit iALS and BPR are.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from account import commit, machine
from quality_models import BPR, IALS, MAX_K, NAMES, OURS, OURS_NAME, PEERS, Fitted, fit
from quality_protocols import PROTOCOLS, Case, Question
from quality_table import print_tables

from rec_engine.data.dataset import IntArray
from rec_engine.errors import TrainingError
from rec_engine.utils.logger import configure_logging

USERS_A_BATCH = 256
LIBRARIES = ("torch", "numpy", "lightgbm")
PROCESSES = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
DEFAULT_MODELS = [name for name in NAMES if name == OURS_NAME or name not in OURS]


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one protocol with one seed: what is measured in a process of its own."""

    protocol: str
    model: str
    seed: int

    def file(self, results: Path) -> Path:
        """Return where the account of it lies, as JSON; the lists of its models lie beside it."""
        return results / f"{self.protocol}.{_in_file_name(self.model)}.{self.seed}.json"


def main() -> None:
    """Measure what is missing and print the tables."""
    configure_logging()
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    if arguments.cell:
        protocol, model, seed = arguments.cell
        measure(Cell(protocol, model, int(seed)), arguments)
        return
    if not arguments.table:
        for cell in _wanted(arguments):
            if not cell.file(arguments.results).exists():
                _measure_apart(cell, arguments)
    print_tables(arguments.protocols, arguments.data, arguments.results)


def measure(cell: Cell, arguments: argparse.Namespace) -> None:
    """Fit a model and keep its lists for every question, with what it cost."""
    protocol = PROTOCOLS[cell.protocol]
    case = protocol.build(arguments.data / protocol.data, cell.seed)
    try:
        models = fit(
            cell.model,
            case,
            seed=cell.seed,
            peer_python=arguments.peer_python,
            peer_minutes=arguments.peer_minutes,
        )
    except TrainingError as error:
        _write(cell.file(arguments.results), {"left_out": str(error)})
        return
    account = {
        "protocol": cell.protocol,
        "seed": cell.seed,
        "split": case.split.fingerprint,
        "machine": machine(LIBRARIES),
        "commit": commit(),
        "models": [_ask(model, case, cell, arguments.results) for model in models],
    }
    _write(cell.file(arguments.results), account)


def _ask(model: Fitted, case: Case, cell: Cell, results: Path) -> dict[str, object]:
    """Return what a model cost; its lists go to a file."""
    started = time.monotonic()
    lists = {
        f"{place}.{turn}": ranked
        for place, question in enumerate(case.questions)
        for turn, ranked in enumerate(_lists(model, question))
    }
    file = f"{cell.protocol}.{_in_file_name(model.name)}.{cell.seed}.npz"
    np.savez_compressed(results / file, **lists)  # type: ignore[arg-type]
    return {
        "name": model.name,
        "lists": file,
        "note": model.note,
        "fit_seconds": round(model.fit_seconds, 1),
        "answer_seconds": round(time.monotonic() - started, 1),
        "peak_mib": max(resource.getrusage(whose).ru_maxrss for whose in PROCESSES) // 1024,
    }


def _lists(model: Fitted, question: Question) -> list[IntArray]:
    """Return (n_users, MAX_K) item codes a round, -1 for users who are not asked; nothing if it has no answer."""
    found = []
    for task in question.rounds:
        recommend = model.answers(task, question.only)
        if recommend is None:
            return []
        has_history, has_targets = np.diff(task.history.starts) > 0, np.diff(task.targets.starts) > 0
        users = np.flatnonzero(has_history & has_targets).astype(np.int32)
        ranked = np.full((task.history.n_users, MAX_K), -1, dtype=np.int32)
        for first in range(0, len(users), USERS_A_BATCH):
            batch = users[first : first + USERS_A_BATCH]
            ranked[batch] = recommend(batch, MAX_K)
        found.append(ranked)
    return found


def _in_file_name(name: str) -> str:
    return name.replace(": ", "-").replace(" ", "-")


def _wanted(arguments: argparse.Namespace) -> list[Cell]:
    models = [model for model in arguments.models if _can_run(model, arguments.peer_python)]
    return [
        Cell(protocol, model, seed)
        for seed in arguments.seeds
        for protocol in arguments.protocols
        for model in models
        if model not in PROTOCOLS[protocol].without
    ]


def _can_run(model: str, peer_python: Path | None) -> bool:
    if model in PEERS:
        return peer_python is not None
    return model not in (IALS.name, BPR.name) or importlib.util.find_spec("implicit") is not None


def _measure_apart(cell: Cell, arguments: argparse.Namespace) -> None:
    print(f"{cell.protocol}, {cell.model}, seed {cell.seed}", flush=True)
    flags: list[object] = ["--data", arguments.data, "--results", arguments.results]
    flags += ["--peer-minutes", arguments.peer_minutes]
    if arguments.peer_python:
        flags += ["--peer-python", arguments.peer_python]
    chosen = ["--cell", cell.protocol, cell.model, str(cell.seed)]
    subprocess.run([sys.executable, __file__, *(str(flag) for flag in flags), *chosen], check=True)


def _write(path: Path, account: dict[str, object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--models", nargs="+", choices=NAMES, default=DEFAULT_MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--peer-minutes", type=float, default=40.0)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
