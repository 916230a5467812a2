"""What a running experiment costs an answer: the same requests to two engines in turns, one of which serves one.

    python benchmarks/experiment_serving.py --model-dir models [--requests 4000]

First every user meets the experiment, which happens to him once; then the same users come again. Both engines are of
one process and answer uncached, each from a log of its own; the arms of the experiment change nothing, so both make the
same answers. Where an engine's memory happens to lie makes it faster or slower than the other, by as much as an
experiment: so the experiment moves to the other one for the second half of the users. A turn takes longer than records
are gathered, so that what an engine's threads write for its answers keeps mostly its own waiting, as in a service, not
the other's. The wall clock of a shared machine is noisy: compare the two, not other runs. "A user's own difference" is
the median of what he waits longer with the experiment, beside the median answer; it is known best.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from account import commit, machine
from numpy.typing import NDArray

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.dataset import ExternalId
from rec_engine.data.events import EventStore
from rec_engine.experiments.proposal import Proposal
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.engine import Engine
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.config import ServingConfig

LIBRARIES = ("numpy", "faiss-cpu", "lightgbm", "onnxruntime")
WARM_UP = 300
TURN = 200
"""Requests to one engine before the other is asked the same."""
PERCENTILES = (50, 95, 99)
RESAMPLES = 2_000
"""Of the turns, for the 95% intervals (bootstrap: both engines answer the same requests in each)."""
SITUATIONS = ("users who meet it for the first time", "the same users again")


@dataclass(frozen=True, slots=True)
class Taken:
    """What turns took, without an experiment and with one.

    Attributes:
        milliseconds: (n_turns, 2, TURN) float64, of each answer, by the clock on the wall; the same users in both.
        processor: (n_turns, 2) float64 milliseconds an answer of all threads of the process.
    """

    milliseconds: NDArray[np.float64]
    processor: NDArray[np.float64]


def main() -> None:
    """Print the time of an answer without and with an experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--requests", type=int, default=4_000, help="to each of the two engines, in each situation")
    asked = parser.parse_args()
    bundle = open_bundle(asked.model_dir)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as closing:
        engines = [_engine(bundle, Path(directory) / f"{number}.db", closing) for number in range(2)]
        n_turns = max(1, round(asked.requests / TURN / 2))
        users = _users(bundle, 2 * (WARM_UP + n_turns * TURN))
        halves = [_half(engines, users[half::2], half) for half in range(2)]
    for who, first, second in zip(SITUATIONS, *halves, strict=True):
        print(f"{who}:")
        _show(_joined(first, second))
    print(f"{machine(LIBRARIES)}, commit {commit()}")


def _half(engines: Sequence[Engine], users: list[ExternalId], half: int) -> list[Taken]:
    """Return what turns take in each situation, where one of the engines serves an experiment for the time being."""
    without, trying = engines[half], engines[1 - half]
    for engine in engines:  # nobody of those who are measured
        _answer(engine, users[:WARM_UP])
    asyncio.run(_start(trying))
    _answer(trying, users[:WARM_UP])
    taken = [_turns((without, trying), users[WARM_UP:]) for _ in SITUATIONS]
    asyncio.run(trying.experiments.step("bench", "stop", ""))
    return taken


def _turns(engines: tuple[Engine, Engine], users: list[ExternalId]) -> Taken:
    starts = range(0, len(users), TURN)
    milliseconds, processor = np.empty((len(starts), 2, TURN)), np.empty((len(starts), 2))
    for turn, start in enumerate(starts):
        for engine in (0, 1) if turn % 2 else (1, 0):
            before = time.process_time()
            milliseconds[turn, engine] = _answer(engines[engine], users[start : start + TURN])
            processor[turn, engine] = 1e3 * (time.process_time() - before) / TURN
    return Taken(milliseconds, processor)


def _answer(engine: Engine, users: list[ExternalId]) -> list[float]:
    """Return how many milliseconds each user's answer takes."""
    took = []
    for place, user in enumerate(users):
        request = RecommendRequest(user_id=user)
        started = time.perf_counter()
        engine.recommend(request, f"r{place}")
        took.append(1e3 * (time.perf_counter() - started))
    return took


def _show(taken: Taken) -> None:
    n_turns = len(taken.processor)
    drawn = np.random.default_rng(0).integers(n_turns, size=(RESAMPLES, n_turns))
    turns = np.concatenate([np.arange(n_turns)[None], drawn])  # as they were, and then resampled
    figures = np.array([_figures(taken, some) for some in turns])  # (1 + RESAMPLES, 2, n_figures)
    for name, row in zip(("without", "with"), figures[0], strict=True):
        *percentiles, mean, processor = row
        shown = ", ".join(f"p{of} {value:.3f} ms" for of, value in zip(PERCENTILES, percentiles, strict=True))
        print(f"  {name} an experiment: {shown}, mean {mean:.3f} ms, {processor:.3f} ms of processor time")
    added = 100 * (figures[:, 1] / figures[:, 0] - 1)
    own = np.array([np.median(np.diff(taken.milliseconds[some], axis=1)) for some in turns])
    added = np.column_stack([100 * own / figures[:, 0, 0], added])
    low, high = np.quantile(added[1:], (0.025, 0.975), axis=0)
    names = ["a user's own difference", *(f"p{of}" for of in PERCENTILES), "mean", "processor time"]
    for of, at, least, most in zip(names, added[0], low, high, strict=True):
        print(f"  added, {of}: {at:+.2f}% [{least:+.2f}%, {most:+.2f}%]")


def _figures(taken: Taken, turns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (2, n_figures) float64 milliseconds: percentiles, mean, and processor time of some turns."""
    times = taken.milliseconds[turns].swapaxes(0, 1).reshape(2, -1)
    return np.vstack([np.percentile(times, PERCENTILES, axis=1), times.mean(axis=1), taken.processor[turns].mean(0)]).T


def _joined(first: Taken, second: Taken) -> Taken:
    return Taken(
        np.concatenate([first.milliseconds, second.milliseconds]), np.concatenate([first.processor, second.processor])
    )


def _users(bundle: ModelBundle, n: int) -> list[ExternalId]:
    """Return n users, nobody twice as long as there are so many."""
    order = np.random.default_rng(0).permutation(len(bundle.user_ids))
    return [bundle.user_ids[user] for user in np.resize(order, n).tolist()]


def _engine(bundle: ModelBundle, log: Path, closing: ExitStack) -> Engine:
    config = ServingConfig.model_validate({"redis": {"cache_ttl": 0}})
    engine = Engine(bundle, config, InMemoryCache(), EventStore(f"sqlite:///{log}"), Telemetry())
    closing.callback(engine.close)
    return engine


async def _start(engine: Engine) -> None:
    await engine.experiments.create(Proposal.of(experiment_id="bench", name="Arms that change nothing"))
    await engine.experiments.step("bench", "start", "")


if __name__ == "__main__":
    main()
