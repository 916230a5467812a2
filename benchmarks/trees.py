"""How long the re-ranker's trees take for the candidates of one request: LightGBM on one thread, and compiled.

    OMP_NUM_THREADS=1 python benchmarks/trees.py [--rows 100 300] [--trees 100 300 500] [--leaves 31 64] [--blocks 100]
                                                 [--rounds 5] [--output trees.json]

Made-up rows of 44 features, some with gaps, zeros or few values. Both score the same block in turn, and no block comes
again before all others have: a branch predictor learns a block that is scored over and over, as no request is. Before
that, every block's scores are compared, bit by bit. Times are CPU time of the calling thread, which other processes
lengthen less than the wall clock's: the median of all calls, and the ratio is the median of those within a turn. The
last column is the wall time of compiling a model; the first one reads the machine code of earlier runs or makes it.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import lightgbm
import numpy as np
from account import commit, machine
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray
from rec_engine.models.compiled_trees import CompiledTrees

N_FEATURES = 44
N_TRAINING_ROWS = 30_000
ROWS_A_REQUEST = 300
LIBRARIES = ("lightgbm", "numba", "llvmlite", "numpy")
COLUMNS = ("leaves", "trees", "rows", "LightGBM us", "compiled us", "ratio", "compile s")


@dataclass(frozen=True, slots=True)
class Cell:
    """What was measured for one model and one number of rows."""

    n_leaves: int
    n_trees: int
    n_rows: int
    lightgbm_us: float
    compiled_us: float
    ratio: float
    compile_seconds: float


def main() -> None:
    """Measure, print a table and write it as JSON."""
    arguments = _arguments()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    cells = []
    for n_leaves in arguments.leaves:
        booster = _booster(n_leaves, max(arguments.trees))
        for n_trees in arguments.trees:
            booster.best_iteration = n_trees
            for n_rows in arguments.rows:
                cells.append(_measure(booster, n_leaves, n_rows, arguments))
                print("| " + " | ".join(f"{value:g}" for value in asdict(cells[-1]).values()) + " |", flush=True)
    if arguments.output:
        account = {"machine": machine(LIBRARIES), "commit": commit(), "cells": [asdict(cell) for cell in cells]}
        arguments.output.write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")


def _booster(n_leaves: int, n_trees: int) -> lightgbm.Booster:
    rng = np.random.default_rng(0)
    values = _rows(rng, N_TRAINING_ROWS)
    known = np.nan_to_num(values)
    score = known @ rng.standard_normal(N_FEATURES) * 0.3 + np.sin(3 * known[:, 0]) * known[:, 4]
    labels = score + rng.standard_normal(N_TRAINING_ROWS) > 1.5
    parameters = {
        "objective": "lambdarank",
        "num_leaves": n_leaves,
        "learning_rate": 0.05,
        "min_data_in_leaf": 20,
        "feature_fraction": 0.7,
        "verbosity": -1,
    }
    requests = np.full(N_TRAINING_ROWS // ROWS_A_REQUEST, ROWS_A_REQUEST)
    return lightgbm.train(parameters, lightgbm.Dataset(values, labels, group=requests), n_trees)


def _rows(rng: np.random.Generator, n: int) -> FloatArray:
    values = rng.standard_normal((n, N_FEATURES)).astype(np.float32)
    values[:, 1::4] = np.log1p(rng.poisson(3, values[:, 1::4].shape))
    values[:, 2::4][rng.random(values[:, 2::4].shape) < 0.4] = np.nan
    values[:, 3::4] = np.maximum(values[:, 3::4], 0)
    return values


def _measure(booster: lightgbm.Booster, n_leaves: int, n_rows: int, arguments: argparse.Namespace) -> Cell:
    rng = np.random.default_rng(1)
    blocks = [_rows(rng, n_rows) for _ in range(arguments.blocks)]
    started = time.perf_counter()
    compiled = CompiledTrees.of(booster)
    compile_seconds = time.perf_counter() - started

    def predict(block: FloatArray) -> NDArray[np.float64]:
        return np.asarray(booster.predict(block, raw_score=True, num_threads=1))

    if not all(np.array_equal(compiled.raw_scores(block), predict(block)) for block in blocks):
        raise SystemExit("the scores are not those of LightGBM")
    turns = [
        (_us(predict, block), _us(compiled.raw_scores, block)) for _ in range(arguments.rounds) for block in blocks
    ]
    times = np.array(turns)
    medians = np.median(times, axis=0)
    return Cell(
        n_leaves=n_leaves,
        n_trees=booster.best_iteration,
        n_rows=n_rows,
        lightgbm_us=round(float(medians[0]), 1),
        compiled_us=round(float(medians[1]), 1),
        ratio=round(float(np.median(times[:, 0] / times[:, 1])), 1),
        compile_seconds=round(compile_seconds, 2),
    )


def _us(score: Callable[[FloatArray], NDArray[np.float64]], block: FloatArray) -> float:
    started = time.thread_time()
    score(block)
    return (time.thread_time() - started) * 1e6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--trees", type=int, nargs="+", default=[100, 300, 500])
    parser.add_argument("--leaves", type=int, nargs="+", default=[31, 64])
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
