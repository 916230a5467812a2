"""A lean HTTP/1.1 load generator: one thread, non-blocking sockets, select; a process of its own beside the server.

    python benchmarks/load_generator.py < plan.json > account.json

`serving.py` writes the plan. A closed loop keeps every connection busy and finds the saturation; an open loop sends at
moments drawn beforehand (Poisson) and measures from those moments, not from when it got round to sending: a server that
stalls is charged for everything that should have been asked meanwhile.

Why no asyncio: the timers of uvloop and the timeouts of epoll are whole milliseconds, and an open loop over them would
measure its own lateness. `select` waits for microseconds, and a loop without callbacks costs less. What it costs, and
how late it was itself, is part of the account. Processes are read from /proc, so it needs Linux.
"""

import contextlib
import json
import os
import re
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

RECOMMEND, FEEDBACK = "/recommend", "/feedback/batch"
ITEMS_WANTED = 10
DRAWS_A_BLOCK = 4_096
DRAIN_SECONDS = 10.0
UNANSWERED, HUNG_UP = 0, -1
"""What stands in for the status of a request that got none."""
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
LAST_OF_CONNECTION = re.compile(rb"connection: *close", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked.

    Attributes:
        user_ids: who asks.
        exponent: user r of the list asks in proportion to 1 / r ** exponent; 0 is uniform, 1 is Zipf.
        unique: whether every request differs from all others, so that no cache of answers can hold it.
        categories: every request is for one of these, drawn by Zipf; for the whole catalogue when there are none.
        item_ids: what feedback is about.
        feedback_share: of the requests, how many bring feedback.
        events_a_batch: events in each of those.
    """

    user_ids: list[int | str]
    exponent: float
    unique: bool
    categories: list[str]
    item_ids: list[int | str]
    feedback_share: float
    events_a_batch: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        port: of the server on this machine.
        server_pid: the server's first process; those that it started are found.
        n_connections: kept alive, as far as the server lets them.
        rate: requests a second of an open loop; None is a closed loop.
        seconds: how long requests are sent.
        at_least: requests that a closed loop sends however long it takes.
        seed: of the draws.
        traffic: what is asked.
    """

    port: int
    server_pid: int
    n_connections: int
    rate: float | None
    seconds: float
    at_least: int
    seed: int
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Account:
    """What came of a run.

    Attributes:
        seconds: from the first request to the last answer.
        answers_by_status: 0 stands for no answer, -1 for a connection that was closed instead.
        latencies_ms: route to p50, p99, p99.9 and the longest, of the answers with status 2xx.
        n_answers: route to answers with status 2xx.
        late_ms: by how much requests left after their moment, in the same four figures.
        n_reconnects: connections that the server closed.
        server_cpu_seconds: process to CPU time within the run.
        generator_cpu_seconds: of this process.
        connections: process to connections it held at the end.
    """

    seconds: float
    answers_by_status: dict[str, int]
    latencies_ms: dict[str, list[float]]
    n_answers: dict[str, int]
    late_ms: list[float]
    n_reconnects: int
    server_cpu_seconds: dict[str, float]
    generator_cpu_seconds: float
    connections: dict[str, int]


def main() -> None:
    """Carry out the plan on stdin and print its account."""
    given = json.load(sys.stdin)
    plan = Plan(**(given | {"traffic": Traffic(**given["traffic"])}))
    print(json.dumps(asdict(generate(plan))))


def generate(plan: Plan) -> Account:
    """Return what came of a plan."""
    rng = np.random.default_rng(plan.seed)
    load = Load(plan, requests(plan.traffic, rng))
    before = {pid: cpu_seconds(pid) for pid in process_tree(plan.server_pid)}
    own, started = time.process_time(), time.perf_counter()
    if plan.rate is None:
        load.run_closed(plan.seconds, plan.at_least)
    else:
        load.run_open(plan.rate, plan.seconds, rng)
    seconds, own = time.perf_counter() - started, time.process_time() - own
    return Account(
        seconds=seconds,
        answers_by_status={str(status): n for status, n in load.answers_by_status.items()},
        latencies_ms={route: _in_figures(of_route) for route, of_route in load.latencies.items()},
        n_answers={route: len(of_route) for route, of_route in load.latencies.items()},
        late_ms=_in_figures(load.late),
        n_reconnects=load.n_reconnects,
        server_cpu_seconds={str(pid): cpu_seconds(pid) - at_start for pid, at_start in before.items()},
        generator_cpu_seconds=own,
        connections=dict(Counter(str(pid) for pid in connection_owners(list(before), plan.port).values())),
    )


def requests(traffic: Traffic, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield routes and whole HTTP requests, without end."""
    users = [json.dumps(user).encode() for user in traffic.user_ids]
    recommend, feedback = _recommend_requests(users, traffic, rng), _feedback_requests(users, traffic, rng)
    while True:
        for is_feedback in (rng.random(DRAWS_A_BLOCK) < traffic.feedback_share).tolist():
            yield (FEEDBACK, next(feedback)) if is_feedback else (RECOMMEND, next(recommend))


def _recommend_requests(users: list[bytes], traffic: Traffic, rng: np.random.Generator) -> Iterator[bytes]:
    wanted = [b',"filter_categories":[%b]' % json.dumps(name).encode() for name in traffic.categories] or [b""]
    of_user, of_wanted = _draws(len(users), traffic.exponent, rng), _draws(len(wanted), 1.0, rng)
    run = time.time_ns()
    for turn, (user, place) in enumerate(zip(of_user, of_wanted, strict=False)):
        unlike = b',"exclude_items":["nothing-%d-%d"]' % (run, turn) if traffic.unique else b""
        fields = users[user], ITEMS_WANTED, wanted[place], unlike
        yield _post(RECOMMEND, b'{"user_id":%b,"num_recommendations":%d%b%b}' % fields)


def _feedback_requests(users: list[bytes], traffic: Traffic, rng: np.random.Generator) -> Iterator[bytes]:
    items = [json.dumps(item).encode() for item in traffic.item_ids]
    of_user, of_item = _draws(len(users), traffic.exponent, rng), _draws(len(items), 1.0, rng)
    event = b'{"user_id":%b,"item_id":%b,"action":"click","timestamp":%d,"event_id":"%d-%d"}'
    run, turn = time.time_ns(), 0
    while True:
        now = int(time.time())
        events = [
            event % (users[next(of_user)], items[next(of_item)], now, run, turn + place)
            for place in range(traffic.events_a_batch)
        ]
        turn += len(events)
        yield _post(FEEDBACK, b'{"events":[%b]}' % b",".join(events))


def _draws(n: int, exponent: float, rng: np.random.Generator) -> Iterator[int]:
    mass = np.cumsum(1 / np.arange(1, n + 1) ** exponent)
    while True:
        yield from np.searchsorted(mass[:-1], rng.random(DRAWS_A_BLOCK) * mass[-1]).tolist()


def _post(route: str, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    return head % (route.encode(), len(body), body)


class Connection:
    """One request at a time over one socket."""

    __slots__ = ("due", "is_busy", "received", "route", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0.0)
        self.received, self.route, self.due, self.is_busy = b"", "", 0.0, False

    def send(self, route: str, request: bytes, due: float) -> None:
        """Send a request that should leave at `due`."""
        self.route, self.due, self.is_busy = route, due, True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # which `receive` will find out and count
            self.socket.sendall(request)

    def receive(self) -> tuple[int | None, bool]:
        """Return the status, None as long as the answer is not complete, and whether the connection goes on."""
        try:
            piece = self.socket.recv(262_144)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return HUNG_UP, False
        self.received += piece
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None, True
        length = LENGTH.search(self.received, 0, end)
        if len(self.received) < end + 4 + (int(length[1]) if length else 0):
            return None, True
        status, goes_on = int(self.received[9:12]), LAST_OF_CONNECTION.search(self.received, 0, end) is None
        self.received, self.is_busy = b"", False
        return status, goes_on


class Load:
    """The connections of a run, and what was noted of it."""

    def __init__(self, plan: Plan, requests: Iterator[tuple[str, bytes]]) -> None:
        self.port, self.requests = plan.port, requests
        self.prepared = next(requests)
        self.idle = deque(Connection(plan.port) for _ in range(plan.n_connections))
        self.by_descriptor = {connection.socket.fileno(): connection for connection in self.idle}
        self.latencies: dict[str, list[float]] = {}
        self.late: list[float] = []
        self.answers_by_status: Counter[int] = Counter()
        self.n_reconnects = 0

    def run_closed(self, seconds: float, at_least: int) -> None:
        """Keep every connection busy."""
        end, n_sent = time.perf_counter() + seconds, 0
        while (now := time.perf_counter()) < end or n_sent < at_least:
            while self.idle:
                self._send(now)
                n_sent += 1
            self._receive(DRAIN_SECONDS)
        self._drain()

    def run_open(self, rate: float, seconds: float, rng: np.random.Generator) -> None:
        """Send at moments drawn beforehand; those for which no connection is free wait, and their clock runs."""
        gaps = rng.exponential(1 / rate, int(seconds * rate))
        for due in (time.perf_counter() + np.cumsum(gaps)).tolist():
            while (wait := due - time.perf_counter()) > 0 or not self.idle:
                self._receive(max(0.0, wait) if self.idle else DRAIN_SECONDS)
            self._send(due)
        self._drain()

    def _send(self, due: float) -> None:
        # The connection that has rested longest: whoever always took the last one would keep to a single worker.
        self.idle.popleft().send(*self.prepared, due)
        self.late.append(time.perf_counter() - due)
        self.prepared = next(self.requests)

    def _receive(self, timeout_seconds: float) -> None:
        """Take what has arrived, after waiting for it at most so long."""
        ready, _, _ = select.select(self.by_descriptor, (), (), timeout_seconds)
        for descriptor in ready:
            connection = self.by_descriptor[descriptor]
            was_busy = connection.is_busy
            status, goes_on = connection.receive()
            if status is not None and was_busy:
                self._note(connection, status)
            if not goes_on:
                self._replace(descriptor)
            elif status is not None:
                self.idle.append(connection)

    def _note(self, connection: Connection, status: int) -> None:
        self.answers_by_status[status] += 1
        if 200 <= status < 300:
            self.latencies.setdefault(connection.route, []).append(time.perf_counter() - connection.due)

    def _replace(self, descriptor: int) -> None:
        """Connect anew where the server has closed a connection."""
        closed = self.by_descriptor.pop(descriptor)
        if closed in self.idle:
            self.idle.remove(closed)
        closed.socket.close()
        fresh = Connection(self.port)
        self.by_descriptor[fresh.socket.fileno()] = fresh
        self.idle.append(fresh)
        self.n_reconnects += 1

    def _drain(self) -> None:
        """Wait for the answers that are still to come."""
        end = time.perf_counter() + DRAIN_SECONDS
        while len(self.idle) < len(self.by_descriptor) and time.perf_counter() < end:
            self._receive(end - time.perf_counter())
        self.answers_by_status[UNANSWERED] += len(self.by_descriptor) - len(self.idle)


def _in_figures(seconds: list[float]) -> list[float]:
    """Return p50, p99, p99.9 and the maximum in milliseconds."""
    figures: list[float] = (1_000 * np.quantile(seconds or [np.nan], [0.5, 0.99, 0.999, 1.0])).round(4).tolist()
    return figures


def process_tree(pid: int) -> list[int]:
    """Return a process and all that it started, directly or not."""
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [pid, *(below for child in children for below in process_tree(child))]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connection_owners(pids: list[int], port: int) -> dict[int, int]:
    """Return the client's port of each connection to `port`, and which of the processes holds the server's end."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    client_by_inode = {
        row[9]: int(row[2].split(":")[1], 16)
        for row in rows
        if row[3] == "01" and int(row[1].split(":")[1], 16) == port
    }
    owners = {}
    for pid in pids:
        for inode in filter(None, map(_socket_inode, Path(f"/proc/{pid}/fd").iterdir())):
            if inode in client_by_inode:
                owners[client_by_inode[inode]] = pid
    return owners


def _socket_inode(descriptor: Path) -> str:
    """Return the inode of an open socket, nothing for other files and those that are closed by now."""
    try:
        return os.readlink(descriptor).removeprefix("socket:[").removesuffix("]")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main()
