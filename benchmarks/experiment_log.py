"""How fast experiments are: users assigned, records taken and stored, and millions of events measured and analysed.

    python benchmarks/experiment_log.py --events 10000000 --users 1000000

The store is filled in the order of time, so that a user's rows come at random, as they do in a shop.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from rec_engine.data.experiment_log import ExperimentLog, Exposure, Measure, Record
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.assignment import Draw, assign_all
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.measuring import measure
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.standard_metrics import CLICKS, CONVERSIONS, ENGAGEMENT_SECONDS, IMPRESSIONS, REVENUE

STARTED_AT, DAYS = 1_700_000_000, 28
NAMES = (IMPRESSIONS, CLICKS, CONVERSIONS, REVENUE, ENGAGEMENT_SECONDS)
SHARES = (0.7, 0.15, 0.03, 0.03, 0.09)
AT_ONCE = 100_000
SECONDS = 86_400 * DAYS


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--store", type=Path, help="a SQLite file to fill, or one that an earlier run filled")
    asked = parser.parse_args()
    proposal = Proposal.of(experiment_id="bench", name="Benchmark", planned_users=asked.users)
    update = {"status": "running", "started_at": STARTED_AT}
    experiment = proposal.experiment(STARTED_AT).model_copy(update=update)
    show_assignment(experiment)
    show_recording()
    with tempfile.TemporaryDirectory() as directory:
        path = asked.store or Path(directory) / "events.db"
        if not path.exists():
            fill(f"sqlite:///{path}", experiment, asked.users, asked.events)
        show_analysis(f"sqlite:///{path}", experiment)


def show_assignment(experiment: Experiment) -> None:
    """Print how many users a second are assigned."""
    users = range(200_000)
    started = time.perf_counter()
    assign_all(experiment, users)
    at_once = len(users) / (time.perf_counter() - started)
    started = time.perf_counter()
    draw = Draw(experiment)
    for user in users:
        draw.assign(str(user), STARTED_AT)
    print(f"assigned a second: {at_once:,.0f} at once, {len(users) / (time.perf_counter() - started):,.0f} one by one")


def show_recording() -> None:
    """Print how long it takes to record, while a thread writes what was recorded, and what the machine itself takes."""
    seen: dict[int, float] = {}
    users = np.random.default_rng(0).integers(0, 10_000, 50_000).tolist()
    print(f"an entry in a dict: {_quantiles(_took(lambda user: seen.update({user: time.time()}), users[:5_000]))}")
    with ABTestManager() as manager:
        manager.create_experiment("bench", "Benchmark")
        manager.start_experiment("bench")
        started = time.perf_counter()
        took = _took(lambda user: manager.record_impression("bench", user), users)
        manager.flush()
        seconds = time.perf_counter() - started
        print(f"recording: {_quantiles(took)}; stored {len(took) / seconds:,.0f} a second while it went on")
        again = _took(lambda user: manager.record_impression("bench", user), users)
        print(f"of users who have met the experiment: {_quantiles(again)}")


def _took(record: Callable[[int], object], users: list[int]) -> np.ndarray:
    """Return (n,) seconds; requests come one after the other, not in a burst that no service sees."""
    took = np.empty(len(users))
    for place, user in enumerate(users):
        before = time.perf_counter()
        record(user)
        took[place] = time.perf_counter() - before
        time.sleep(5e-5)
    return took


def _quantiles(took: np.ndarray) -> str:
    return ", ".join(f"p{100 * q:g} {1e6 * np.quantile(took, q):.0f} us" for q in (0.5, 0.99, 0.999))


def fill(url: str, experiment: Experiment, n_users: int, n_events: int) -> None:
    """Write exposures and events, and print how many a second."""
    log = ExperimentLog(url)
    started = time.perf_counter()
    for records in chain(exposures(experiment, n_users), events(n_users, n_events)):
        log.write(records)
    log.close()
    n_rows = n_users + n_events
    print(f"stored: {n_rows:,} rows, {n_rows / (time.perf_counter() - started):,.0f} a second")


def exposures(experiment: Experiment, n_users: int) -> Iterator[list[Record]]:
    """Yield an exposure of each user, within the first half of the experiment."""
    at = np.random.default_rng(1).integers(0, SECONDS // 2, n_users) + STARTED_AT
    places = assign_all(experiment, range(n_users))
    for start in range(0, n_users, AT_ONCE):
        some = range(start, min(n_users, start + AT_ONCE))
        names = experiment.arm_names
        yield [Exposure("bench", str(user), names[places[user]], 0, int(at[user]), 0.5, 0) for user in some]


def events(n_users: int, n_events: int) -> Iterator[list[Record]]:
    """Yield events of users at random, some before their exposure and most of them after it."""
    rng = np.random.default_rng(2)
    for start in range(0, n_events, AT_ONCE):
        n = min(AT_ONCE, n_events - start)
        at = (
            np.sort(rng.integers(0, SECONDS // 10, n))
            + STARTED_AT
            - SECONDS // 4
            + int(1.15 * SECONDS * start / n_events)
        )
        kinds = rng.choice(len(NAMES), n, p=SHARES).tolist()
        drawn = zip(
            rng.integers(0, n_users, n).tolist(), kinds, rng.exponential(20.0, n).tolist(), at.tolist(), strict=True
        )
        yield [
            Measure("bench", str(user), f"{start + place:x}", NAMES[kind], value if kind > 2 else 1.0, moment, 0)  # noqa: PLR2004
            for place, (user, kind, value, moment) in enumerate(drawn)
        ]


def show_analysis(url: str, experiment: Experiment) -> None:
    """Print how long it takes to measure and to analyse, and how much memory the process has had at most."""
    started = time.perf_counter()
    measured = measure(url, experiment, STARTED_AT + SECONDS)
    read = time.perf_counter()
    analysis = analyze(experiment.design, measured)
    done = time.perf_counter()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"measured {measured.n_users:,} users in {read - started:.1f} s, analysed in {done - read:.1f} s, "
        f"peak memory {peak_gb:.2f} GB: {analysis.recommendation.action}"
    )


if __name__ == "__main__":
    main()
