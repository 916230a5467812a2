"""Simulated people at a running service: they get real answers over HTTP and send real feedback.

The loop is open: people come at moments drawn beforehand (Poisson) and latencies count from those moments, so a service
that stalls is charged for everybody who came meanwhile.
"""

import http.client
import json
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.clickstream_sim import ClickstreamSimulator
from rec_engine.data.dataset import ExternalId, LongArray
from rec_engine.data.simulated_world import NOTHING
from rec_engine.errors import ConfigError

READY, RECOMMEND, FEEDBACK = "/ready", "/recommend", "/feedback/batch"
KEY_VARIABLE = "REC_ENGINE_API_KEY"
TIMEOUT_SECONDS = 10.0
NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Visitors:
    """Who comes, and how often.

    Attributes:
        rate: people a second.
        seconds: how long they come.
        exponent: user r of a drawn order comes in proportion to 1 / r ** exponent; 0 is uniform, 1 is Zipf.
        n_connections: requests that may be on their way at once.
        k: items asked for.
        seed: of who comes when.
    """

    rate: float
    seconds: float
    exponent: float
    n_connections: int
    k: int
    seed: int


@dataclass(frozen=True, slots=True)
class Account:
    """What came of it.

    Attributes:
        n_visitors: people who came.
        n_answers: of them, those who were answered.
        n_shown: items that they were shown.
        n_unknown: of them, items that the simulated world does not know; nobody clicks those.
        events: acknowledged feedback by action.
        errors: status, or what else went wrong, to how often.
        latencies_ms: route to latencies in milliseconds, ascending, of requests that were answered.
        expected_clicks: of an average answer, by the truth.
        best_clicks: of the best page that there was instead, by the truth.
        seconds: from the first visitor to the last answer.
    """

    n_visitors: int
    n_answers: int
    n_shown: int
    n_unknown: int
    events: dict[str, int]
    errors: dict[str, int]
    latencies_ms: dict[str, NDArray[np.float64]]
    expected_clicks: float
    best_clicks: float
    seconds: float


def replay(simulator: ClickstreamSimulator, url: str, visitors: Visitors, api_key: str | None) -> Account:
    """Return what came of sending simulated people to a service.

    Args:
        simulator: of a world whose ids are those of the service; its people remember what they click.
        url: such as http://127.0.0.1:8000.
        visitors: who comes, and how often.
        api_key: sent as `Authorization: Bearer`; None where the service asks for none.

    Raises:
        ConfigError: if nobody answers at the URL, or the key is not good enough.
    """
    _check(url, api_key)
    arrivals = _arrivals(visitors, simulator.world.users.height)
    crowd = _Crowd(simulator, visitors, arrivals)
    threads = [
        threading.Thread(target=crowd.come, args=(_Connection(url, api_key),), daemon=True)
        for _ in range(visitors.n_connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return crowd.account(time.perf_counter() - crowd.started)


class _Connection:
    """One request at a time; connects again after whatever went wrong."""

    def __init__(self, url: str, api_key: str | None) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        self._http: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        )
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {api_key}"} if api_key else {}
        )

    def ask(self, method: str, route: str, body: object = None) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            OSError: if the service cannot be reached, or hangs up.
            HTTPException: if the answer is no HTTP.
        """
        try:
            data = None if body is None else json.dumps(body).encode()
            self._http.request(method, self._prefix + route, data, self._headers)
            answer = self._http.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._http.close()


@dataclass
class _Notes:
    """What is noted while people come and go; every change under the crowd's lock."""

    n_answers: int = 0
    n_shown: int = 0
    n_unknown: int = 0
    events: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=lambda: {RECOMMEND: [], FEEDBACK: []})
    expected: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)


class _Crowd:
    """Those who come: connections take them one after the other, in the order of their moments."""

    def __init__(self, simulator: ClickstreamSimulator, visitors: Visitors, arrivals: list[tuple[float, int]]) -> None:
        self._simulator, self._k = simulator, visitors.k
        self._users = simulator.world.users["user_id"].to_list()
        self._codes = {str(item): code for code, item in enumerate(simulator.world.items["item_id"].to_list())}
        self._n_visitors, self._next = len(arrivals), iter(arrivals)
        self._lock, self._notes = threading.Lock(), _Notes()
        self._run = uuid.uuid4().hex
        self.started = time.perf_counter()

    def come(self, connection: _Connection) -> None:
        """Let people come until nobody is left."""
        for after, user in self._waiting():
            due = self.started + after
            time.sleep(max(0.0, due - time.perf_counter()))
            body = {"user_id": self._users[user], "num_recommendations": self._k}
            answer = self._ask(connection, RECOMMEND, body, due)
            if answer is not None:
                self._react(connection, user, answer)
        connection.close()

    def account(self, seconds: float) -> Account:
        """Return what came of it."""
        notes = self._notes
        return Account(
            n_visitors=self._n_visitors,
            n_answers=notes.n_answers,
            n_shown=notes.n_shown,
            n_unknown=notes.n_unknown,
            events=dict(notes.events),
            errors=dict(notes.errors),
            latencies_ms={route: 1_000 * np.sort(np.array(of)) for route, of in notes.latencies.items()},
            expected_clicks=float(np.mean(notes.expected)) if notes.expected else float("nan"),
            best_clicks=float(np.mean(notes.best)) if notes.best else float("nan"),
            seconds=seconds,
        )

    def _waiting(self) -> Iterator[tuple[float, int]]:
        while True:
            with self._lock:
                arrival = next(self._next, None)
            if arrival is None:
                return
            yield arrival

    def _ask(self, connection: _Connection, route: str, body: object, due: float) -> bytes | None:
        """Return the body of a good answer, None for all others, which are counted."""
        try:
            status, found = connection.ask("POST", route, body)
        except (OSError, http.client.HTTPException) as error:
            with self._lock:
                self._notes.errors[f"{route}: {NO_ANSWER} ({type(error).__name__})"] += 1
            return None
        with self._lock:
            if not 200 <= status < 300:
                self._notes.errors[f"{route}: status {status}"] += 1
                return None
            self._notes.latencies[route].append(time.perf_counter() - due)
        return found

    def _react(self, connection: _Connection, user: int, answer: bytes) -> None:
        try:
            found = json.loads(answer)
            request_id, shown = str(found["request_id"]), [item["item_id"] for item in found["recommendations"]]
        except (ValueError, KeyError, TypeError):  # whoever answers 200 there, it is no such service
            with self._lock:
                self._notes.errors[f"{RECOMMEND}: no recommendations in the answer"] += 1
            return
        events = [
            {
                "user_id": self._users[user],
                "item_id": shown[place],
                "action": action,
                "request_id": request_id,
                "event_id": f"{self._run}-{request_id}-{place}-{action}",
            }
            for place, action in self._reactions(user, shown[: self._k])
        ]
        if events and self._ask(connection, FEEDBACK, {"events": events}, time.perf_counter()) is not None:
            with self._lock:
                self._notes.events.update(str(event["action"]) for event in events)

    def _reactions(self, user: int, shown: list[ExternalId]) -> list[tuple[int, str]]:
        """Return what a user does with what he is shown, and note what it was worth."""
        codes = [self._codes.get(str(item), NOTHING) for item in shown]
        page = np.array(codes + [NOTHING] * (self._k - len(codes)), dtype=np.int64)
        users, moments = np.array([user]), np.array([int(time.time())])
        with self._lock:
            notes, simulator = self._notes, self._simulator
            notes.n_answers += 1
            notes.n_shown += len(codes)
            notes.n_unknown += codes.count(NOTHING)
            best = simulator.best_pages(users, moments, self._k)
            notes.expected.append(float(simulator.expected_clicks(users, page[None, :], moments)[0]))
            notes.best.append(float(simulator.expected_clicks(users, best, moments)[0]))
            return simulator.react(user, page, int(moments[0]))


def _check(url: str, api_key: str | None) -> None:
    """Make sure that a service is there and lets us in, before anybody comes."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"--against {url}: no address of a service", hint="such as http://127.0.0.1:8000")
    connection = _Connection(url, api_key)
    try:
        status, _ = connection.ask("GET", READY)
        if status == 200:
            # Nobody is asked for a key at /ready: an empty body is turned down for itself, or for the lack of a key.
            status, _ = connection.ask("POST", RECOMMEND, {})
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(
            f"--against {url}: nobody answers ({error})", hint="rec-engine serve starts a service"
        ) from None
    finally:
        connection.close()
    if status in {401, 403}:
        raise ConfigError(
            f"--against {url}: the service answers {status}",
            hint=f"set {KEY_VARIABLE} to a key with the scopes serve and ingest",
        )
    if status not in {400, 422}:
        raise ConfigError(f"--against {url}: not ready, it answers {status}", hint="look at its /ready and its log")


def _arrivals(visitors: Visitors, n_users: int) -> list[tuple[float, int]]:
    """Return seconds after the start and users, in order; at least one."""
    rng = np.random.default_rng(visitors.seed)
    n = max(1, round(visitors.rate * visitors.seconds))
    after = np.sort(rng.uniform(0, visitors.seconds, n))  # a Poisson process of which the number is known
    order: LongArray = rng.permutation(n_users)
    mass = np.cumsum(1 / np.arange(1, n_users + 1) ** visitors.exponent)
    users = order[np.searchsorted(mass[:-1], rng.random(n) * mass[-1])]
    return list(zip(after.tolist(), users.tolist(), strict=True))
