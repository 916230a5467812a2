"""How fast the service is: a real server process, a real client over loopback, beside floors and aims.

    python benchmarks/big_bundle.py /tmp/big
    python benchmarks/serving.py --model-dir /tmp/big [--workers 1 2] [--scenarios uncached cached zipf] [--unique]
                                 [--rates 1000] [--seconds 10] [--runs 3] [--env NAME=VALUE ...] [--output new.json]
    python benchmarks/serving.py --compare old.json new.json

Each number of workers and each scenario gets a server of its own: start, warm-up, closed loops for the saturation, then
open loops at fixed rates and at half of the saturation. `load_generator.py` makes the load and accounts for itself.
CPU time an answer is what holds on a noisy machine; the wall clock is not. Needs Linux.

uncached, uncached-zipf   the cache of answers is off; with --unique it is on and no two requests are alike
filtered                  uncached, each request for one category, the frequent ones more often
cached                    few users, asked in the warm-up already
zipf                      all users, few of them often; the hit rate is what GET /cache/stats of every worker says
feedback                  events in batches of 100, POST /feedback/batch
mixed                     zipf, and every twentieth request brings an event
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
import polars as pl
from account import commit, machine
from load_generator import FEEDBACK, RECOMMEND, Account, Plan, Traffic, connection_owners, process_tree

from rec_engine.bundle import find_bundle

GENERATOR = Path(__file__).with_name("load_generator.py")
LIBRARIES = ("fastapi", "uvicorn", "uvloop", "pydantic", "numpy", "faiss-cpu", "lightgbm", "onnxruntime")
CACHE_OFF = {"REC_ENGINE_REDIS__CACHE_TTL": "0"}
CLOSED_CONNECTIONS, OPEN_CONNECTIONS = 32, 64
FEEDBACK_ITEMS = 10_000
CACHED_USERS, ROUNDS_OF_CACHED_USERS = 200, 8
"""A worker that keeps a cache of its own has to be asked for every user: in 8 rounds two workers miss 2% of them."""
KEEPS_UP = 0.95
"""Rates above this share of the saturation are left out: the queue would only grow."""
MAX_START_SECONDS, MAX_RUN_SECONDS, MAX_PROBES = 600, 1_800, 64

ANSWERS, EVENTS, CPU = "answers/s", "events/s", "CPU ms an answer"
START, MEMORY, ERRORS, HITS = "start to first /ready s", "RSS of the largest process GiB", "errors", "cache hit rate"
GOALS = {
    ("uncached", 1, ANSWERS): (1_000, 1_800),
    ("uncached", 2, ANSWERS): (1_800, 4_500),
    ("uncached", 1, CPU): (1.0, 0.4),
    ("uncached", 2, CPU): (1.0, 0.4),
    ("uncached", 1, "p99 ms at 1000/s"): (50, 10),
    ("uncached", 1, START): (5, 2),
    ("uncached", 2, START): (5, 2),
    ("uncached", 1, MEMORY): (1.5, 0.75),
    ("uncached", 2, MEMORY): (1.5, 0.75),
    ("cached", 1, CPU): (0.2, 0.025),
    ("cached", 2, CPU): (0.2, 0.025),
    ("cached", 1, "p99 ms at 1000/s"): (10, 3),
}
"""Scenario, workers and figure to floor and aim, for a million items on two cores."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of a server.

    Attributes:
        is_cached: whether answers may come from the cache.
        is_filtered: whether each request is for one category.
        exponent: of the users' popularity, 0 is uniform.
        n_users: only so many of them ask.
        feedback_share: requests that bring feedback.
        events_a_batch: events in each of those.
    """

    is_cached: bool = True
    is_filtered: bool = False
    exponent: float = 0.0
    n_users: int | None = None
    feedback_share: float = 0.0
    events_a_batch: int = 1


SCENARIOS = {
    "uncached": Scenario(is_cached=False),
    "uncached-zipf": Scenario(is_cached=False, exponent=1.0),
    "filtered": Scenario(is_cached=False, is_filtered=True),
    "cached": Scenario(n_users=CACHED_USERS),
    "zipf": Scenario(exponent=1.0),
    "feedback": Scenario(exponent=1.0, feedback_share=1.0, events_a_batch=100),
    "mixed": Scenario(exponent=1.0, feedback_share=0.05),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured, once a run."""

    scenario: str
    workers: int
    name: str
    values: list[float]
    floor: float | None
    aim: float | None

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells it from the others."""
        return self.scenario, self.workers, self.name

    @property
    def median(self) -> float:
        """The middle one of the runs."""
        return float(np.median(self.values))


@dataclass(frozen=True, slots=True)
class Server:
    """A running service."""

    pid: int
    port: int
    workers: int
    start_seconds: float


def main() -> None:
    """Measure and print, or compare two files."""
    arguments = _arguments()
    if arguments.compare:
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in arguments.compare)
        print_comparison(old, new)
        return
    bundle = find_bundle(arguments.model_dir)
    everything = all_traffic(bundle)
    figures: list[Figure] = []
    details = []
    for workers in arguments.workers:
        for name in arguments.scenarios:
            print(f"{name}, workers: {workers}", file=sys.stderr, flush=True)
            values, detail = measure(SCENARIOS[name], workers, everything, arguments)
            details.append({"scenario": name, "workers": workers} | detail)
            for figure, of_runs in values.items():
                goal = GOALS.get((name, workers, figure), (None, None))
                figures.append(Figure(name, workers, figure, of_runs, *goal))
    print_table(figures)
    if arguments.output:
        shown = {key: str(value) for key, value in vars(arguments).items()}
        about = {"commit": commit(), "machine": machine(LIBRARIES), "arguments": shown, "bundle": bundle.name}
        account = about | {"figures": [asdict(figure) for figure in figures], "details": details}
        arguments.output.write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")


def all_traffic(bundle: Path) -> Traffic:
    """Return what can be asked of a bundle."""
    users, items = pl.read_parquet(bundle / "users.parquet"), pl.read_parquet(bundle / "items.parquet")
    categories = items["categories"].explode().drop_nulls().alias("name").value_counts()
    return Traffic(
        user_ids=users["user_id"].to_list(),
        exponent=0.0,
        unique=False,
        categories=categories.sort(["count", "name"], descending=[True, False])["name"].to_list(),
        item_ids=items["item_id"].sample(min(items.height, FEEDBACK_ITEMS), seed=0).to_list(),
        feedback_share=0.0,
        events_a_batch=1,
    )


def measure(
    scenario: Scenario, workers: int, everything: Traffic, arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, object]]:
    """Return figure to its values, one a run, and what else was seen of the server."""
    traffic = replace(
        everything,
        user_ids=everything.user_ids[: scenario.n_users],
        categories=everything.categories if scenario.is_filtered else [],
        exponent=scenario.exponent,
        unique=arguments.unique and not scenario.is_cached,
        feedback_share=scenario.feedback_share,
        events_a_batch=scenario.events_a_batch,
    )
    environment = dict(pair.split("=", 1) for pair in arguments.env)
    if not scenario.is_cached and not arguments.unique:
        environment |= CACHE_OFF
    values: dict[str, list[float]] = defaultdict(list)
    with serve(arguments.model_dir, workers, environment) as server:
        values[START].append(server.start_seconds)
        at_least = ROUNDS_OF_CACHED_USERS * workers * scenario.n_users if scenario.n_users else 0
        plan = Plan(server.port, server.pid, CLOSED_CONNECTIONS, None, arguments.seconds, at_least, 0, traffic)
        accounts = [run_generator(plan)]
        before = cache_counts(server)
        accounts += _closed_runs(replace(plan, at_least=0), arguments.runs, values)
        accounts += _open_runs(replace(plan, n_connections=OPEN_CONNECTIONS), arguments, values)
        hits, misses = cache_counts(server) - before
        values[HITS].append(hits / max(1, hits + misses))
        processes = [{"pid": pid} | memory_gibibytes(pid) for pid in process_tree(server.pid)]
        values[MEMORY].append(max(process["rss"] for process in processes))
        values["PSS of all processes GiB"].append(sum(process["pss"] for process in processes))
        seen = {
            "model": ask(server.port, "/model/status"),
            "answer": ask(server.port, RECOMMEND, {"user_id": traffic.user_ids[0]})["metadata"],
        }
    return values, seen | {"processes": processes, "runs": [asdict(account) for account in accounts]}


def _closed_runs(plan: Plan, runs: int, values: dict[str, list[float]]) -> list[Account]:
    accounts = [run_generator(replace(plan, seed=seed)) for seed in range(1, runs + 1)]
    for account in accounts:
        if not account.n_answers:
            raise SystemExit(f"not one good answer; answers by status: {account.answers_by_status}")
        n_answers, n_connections = sum(account.n_answers.values()), list(account.connections.values())
        values[ANSWERS].append(n_answers / account.seconds)
        if plan.traffic.feedback_share:
            values[EVENTS].append(account.n_answers.get(FEEDBACK, 0) * plan.traffic.events_a_batch / account.seconds)
        values[CPU].append(1_000 * sum(account.server_cpu_seconds.values()) / n_answers)
        values["CPU of the generator, cores"].append(account.generator_cpu_seconds / account.seconds)
        values["connections on the busiest process"].append(max(n_connections) / sum(n_connections))
        values[ERRORS].append(_n_errors(account))
    return accounts


def _open_runs(plan: Plan, arguments: argparse.Namespace, values: dict[str, list[float]]) -> list[Account]:
    saturation = float(np.median(values[ANSWERS]))
    wanted = [(f"{rate:g}/s", rate) for rate in arguments.rates if rate < KEEPS_UP * saturation]
    if len(wanted) < len(arguments.rates):
        print(f"rates above {saturation:,.0f}/s are left out", file=sys.stderr, flush=True)
    accounts = []
    for name, rate in [*wanted, ("half load", saturation / 2)]:
        for seed in range(1, arguments.runs + 1):
            accounts.append(account := run_generator(replace(plan, rate=rate, seed=seed)))
            for route, latencies in account.latencies_ms.items():
                of_route = "" if route == RECOMMEND else f", {route}"
                for figure, value in zip(("p50", "p99", "p99.9"), latencies, strict=False):
                    values[f"{figure} ms at {name}{of_route}"].append(value)
            values[f"p99 ms the generator was late at {name}"].append(account.late_ms[1])
            values[f"{ERRORS} at {name}"].append(_n_errors(account))
    return accounts


def _n_errors(account: Account) -> int:
    return sum(n for status, n in account.answers_by_status.items() if not status.startswith("2"))


def run_generator(plan: Plan) -> Account:
    """Return what the load generator, in a process of its own, says of a plan."""
    given = json.dumps(asdict(plan))
    command = [sys.executable, str(GENERATOR)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=MAX_RUN_SECONDS)
    if done.returncode:
        raise SystemExit(f"the load generator failed:\n{done.stderr}")
    return Account(**json.loads(done.stdout))


@contextmanager
def serve(model_dir: Path, workers: int, environment: dict[str, str]) -> Iterator[Server]:
    """Run `rec-engine serve`, cache in memory and log of its own; all workers are ready when the block begins."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    flags = ["--model-dir", model_dir, "--host", "127.0.0.1", "--port", port, "--workers", workers]
    command = [sys.executable, "-m", "rec_engine", "serve", *map(str, flags)]
    started = time.monotonic()
    with TemporaryFile("w+") as log, TemporaryDirectory() as state:
        store = {"REC_ENGINE_STORE__URL": f"sqlite:///{state}/events.db"}
        variables = os.environ | {"USE_MEMORY_CACHE": "true"} | store | environment
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() - started > MAX_START_SECONDS:
                    log.seek(0)
                    raise SystemExit(f"the server did not start:\n{log.read()}")
                time.sleep(0.02)
            server = Server(process.pid, port, workers, time.monotonic() - started)
            while len(ask_workers(server, "/ready")) < workers and time.monotonic() - started < MAX_START_SECONDS:
                time.sleep(0.5)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=60)


def _is_ready(port: int) -> bool:
    try:
        return ask(port, "/ready")["status"] == "ready"
    except (OSError, HTTPException, KeyError):
        return False


def ask(port: int, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
    """Return the JSON behind a path; with a body it is posted."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        posted = json.dumps(body) if body else None
        connection.request("POST" if body else "GET", path, posted, {"content-type": "application/json"})
        answer: dict[str, object] = json.load(connection.getresponse())
        return answer
    finally:
        connection.close()


def ask_workers(server: Server, path: str) -> dict[int, dict[str, float]]:
    """Return process to the JSON behind a path, of all workers that the connections happen to reach."""
    found: dict[int, dict[str, float]] = {}
    pids = process_tree(server.pid)
    with ExitStack() as stack:
        for _ in range(MAX_PROBES):
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            stack.callback(connection.close)
            connection.request("GET", path)
            answer = json.load(connection.getresponse())
            found[connection_owners(pids, server.port)[connection.sock.getsockname()[1]]] = answer
            if len(found) == server.workers:
                break
    return found


def cache_counts(server: Server) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return hits and misses of all workers that could be reached."""
    found = ask_workers(server, "/cache/stats").values()
    return np.array([sum(stats[count] for stats in found) for count in ("hits", "misses")], dtype=np.float64)


def memory_gibibytes(pid: int) -> dict[str, float]:
    """Return the memory that a process has in use, whole (rss) and with its share of what others use too (pss)."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    kibibytes = {row[0]: int(row[1]) for row in rows if row[-1] == "kB"}
    return {"rss": kibibytes["Rss:"] / 2**20, "pss": kibibytes["Pss:"] / 2**20}


def print_table(figures: Sequence[Figure]) -> None:
    """Print every figure beside its goal, as Markdown."""
    print(
        "| scenario | workers | figure | median | lowest | highest | floor | aim |\n|---|---|---|---|---|---|---|---|"
    )
    for figure in figures:
        shown = (figure.median, min(figure.values), max(figure.values), figure.floor, figure.aim)
        print(f"| {' | '.join([*map(str, figure.key), *map(_cell, shown)])} |")


def print_comparison(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Print the figures that two files have in common."""
    print(f"old: {old['commit']}, {old['machine']}\nnew: {new['commit']}, {new['machine']}\n")
    print("| scenario | workers | figure | old | new | new / old | floor | aim |\n|---|---|---|---|---|---|---|---|")
    before = {figure.key: figure.median for figure in (Figure(**row) for row in old["figures"])}
    for now in (Figure(**row) for row in new["figures"]):
        if (was := before.get(now.key)) is not None:
            shown = was, now.median, now.median / was if was else None, now.floor, now.aim
            print(f"| {' | '.join([*map(str, now.key), *map(_cell, shown)])} |")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=["uncached", "cached", "zipf"])
    parser.add_argument("--unique", action="store_true")
    parser.add_argument("--rates", nargs="*", type=float, default=[1_000.0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--env", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
