"""What a running experiment costs an answer: the same requests to two engines in turns, one of which serves one.

    python benchmarks/experiment_serving.py --model-dir models [--requests 4000]

First every user meets the experiment, which happens to him once; then the same users come again. Both engines are of
one process and answer uncached, each from a log of its own; the arms of the experiment change nothing, so both make the
same answers. The wall clock of a shared machine is noisy: compare the two, not other runs.
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from account import commit, machine

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.events import EventStore
from rec_engine.experiments.proposal import Proposal
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.engine import Engine
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.config import ServingConfig

LIBRARIES = ("numpy", "faiss-cpu", "lightgbm", "onnxruntime")
WARM_UP = 300
PERCENTILES = (50, 95, 99)
RESAMPLES = 500
"""Of the requests, for the 95% intervals of the ratios (bootstrap: both engines answer the same requests)."""


def main() -> None:
    """Print the time of an answer without and with an experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--requests", type=int, default=4_000, help="to each of the two engines")
    asked = parser.parse_args()
    bundle = open_bundle(asked.model_dir)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as closing:
        plain = _engine(bundle, Path(directory) / "plain.db", closing)
        trying = _engine(bundle, Path(directory) / "trying.db", closing)
        asyncio.run(_start(trying))
        for who in ("users who meet it for the first time", "the same users again"):
            print(f"{who}:")
            _show(_times(bundle, (plain, trying), asked.requests))
        _show_added(trying)
    print(f"{machine(LIBRARIES)}, commit {commit()}")


def _show(milliseconds: np.ndarray) -> None:
    for name, row in zip(("without", "with"), milliseconds, strict=True):
        figures = ", ".join(f"p{of} {value:.3f} ms" for of, value in zip(PERCENTILES, _figures(row), strict=True))
        print(f"  {name} an experiment: {figures}, mean {row.mean():.3f} ms")
    ratios = _figures(milliseconds[1]) / _figures(milliseconds[0])
    drawn = np.random.default_rng(0).integers(milliseconds.shape[1], size=(RESAMPLES, milliseconds.shape[1]))
    resampled = np.percentile(milliseconds[:, drawn], PERCENTILES, axis=2)
    low, high = np.quantile(resampled[:, 1] / resampled[:, 0], (0.025, 0.975), axis=1)
    each = zip(PERCENTILES, ratios, low, high, strict=True)
    print("  ratios: " + ", ".join(f"p{of} {at:.3f} [{least:.3f}, {most:.3f}]" for of, at, least, most in each))


def _show_added(engine: Engine) -> None:
    """Print the processor time of what an answer does for an experiment alone: the least, for load adds to it."""
    users = [f"added {number}" for number in range(20_000)]
    for who in ("who meets it for the first time", "who comes again"):
        took = [_added_seconds(engine, users[start : start + 1_000]) for start in range(0, len(users), 1_000)]
        print(f"added to the answer of a user {who}: {1e6 * min(took):.1f} us of processor time")


def _added_seconds(engine: Engine, users: list[str]) -> float:
    before = time.thread_time()
    for user in users:
        engine.experiments.treatments.met(user, engine.treatment(user))
    return (time.thread_time() - before) / len(users)


def _engine(bundle: ModelBundle, log: Path, closing: ExitStack) -> Engine:
    config = ServingConfig.model_validate({"redis": {"cache_ttl": 0}})
    engine = Engine(bundle, config, InMemoryCache(), EventStore(f"sqlite:///{log}"), Telemetry())
    closing.callback(engine.close)
    return engine


async def _start(engine: Engine) -> None:
    await engine.experiments.create(Proposal.of(experiment_id="bench", name="Arms that change nothing"))
    await engine.experiments.step("bench", "start", "")


def _times(bundle: ModelBundle, engines: tuple[Engine, Engine], n_requests: int) -> np.ndarray:
    """Return (2, n_requests) float64 milliseconds; each user is asked of both, first of the one, then of the other."""
    users = np.random.default_rng(0).integers(len(bundle.user_ids), size=WARM_UP + n_requests)
    times = np.empty((2, len(users)))
    for place, user in enumerate(users.tolist()):
        request = RecommendRequest(user_id=bundle.user_ids[user])
        for engine in (0, 1) if place % 2 else (1, 0):
            started = time.perf_counter()
            engines[engine].recommend(request, f"r{place}")
            times[engine, place] = 1e3 * (time.perf_counter() - started)
    return times[:, WARM_UP:]


def _figures(milliseconds: np.ndarray) -> np.ndarray:
    return np.asarray(np.percentile(milliseconds, PERCENTILES))


if __name__ == "__main__":
    main()
