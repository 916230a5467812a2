"""Simulated people at a running service: what they are shown, do and see go wrong is counted right."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import N_USERS, items_frame
from servers import served

from rec_engine.data.clickstream_sim import ClickstreamSimulator
from rec_engine.data.impressions import load_impressions
from rec_engine.errors import ConfigError
from rec_engine.pipeline.replay import FEEDBACK, RECOMMEND, Visitors, replay
from rec_engine.serving.security import make_key

VISITORS = Visitors(rate=60, seconds=2, exponent=1.0, n_connections=8, k=5, seed=0)


def simulator() -> ClickstreamSimulator:
    return ClickstreamSimulator(pl.DataFrame({"user_id": range(N_USERS)}), items_frame(), seed=0)


def test_feedback_of_simulated_people_lies_in_the_log_beside_what_they_were_shown(
    model_dir: Path, tmp_path: Path
) -> None:
    key, digest = make_key()
    settings = f'[{{"name": "simulator", "sha256": "{digest}", "scopes": ["serve", "ingest"]}}]'
    variables = {"REC_ENGINE_SECURITY__KEYS": settings}
    with served(model_dir, tmp_path / "events.db", 1, variables=variables) as (url, _):
        with pytest.raises(ConfigError, match="the service answers 401") as refused:
            replay(simulator(), url, VISITORS, None)
        assert "REC_ENGINE_API_KEY" in refused.value.hint
        account = replay(simulator(), url, VISITORS, key)
    assert (account.n_visitors, account.n_answers, account.errors) == (120, 120, {})
    assert 300 < account.n_shown <= 600  # who has met nearly everything is shown the rest
    assert account.n_unknown == 0
    assert account.events["click"] >= 20
    assert 0 < account.expected_clicks <= account.best_clicks
    assert len(account.latencies_ms[RECOMMEND]) == 120
    found = load_impressions(f"sqlite:///{tmp_path / 'events.db'}")
    assert (found.n_requests, len(found)) == (120, account.n_shown)
    assert found.clicked.sum() == account.events["click"]


class _Moody(BaseHTTPRequestHandler):
    """Turns empty requests down, and by turns fails, hangs up, talks of other things and shows strange items."""

    protocol_version = "HTTP/1.1"
    n_asked = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        self._say(200, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"{}":
            self._say(422, b"{}")
            return
        with self.lock:
            type(self).n_asked += 1
            turn = self.n_asked % 4
        if turn == 0:
            self._say(500, b"{}")
        elif turn == 1:
            self.close_connection = True
        elif turn == 2:
            self._say(200, b"<html>")
        else:
            self._say(200, b'{"request_id": "r", "recommendations": [{"item_id": "strange"}]}')

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_what_goes_wrong_is_counted_and_the_others_go_on() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        account = replay(simulator(), f"http://127.0.0.1:{server.server_port}", VISITORS, None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert account.n_visitors == 120
    assert account.n_answers == 30
    assert account.errors[f"{RECOMMEND}: status 500"] == 30
    assert account.errors[f"{RECOMMEND}: no recommendations in the answer"] == 30
    assert sum(n for error, n in account.errors.items() if "no answer" in error) == 30
    assert (account.n_shown, account.n_unknown, account.events) == (30, 30, {})
    assert len(account.latencies_ms[FEEDBACK]) == 0
    assert np.all(np.diff(account.latencies_ms[RECOMMEND]) >= 0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "no address of a service"),
        ("ftp://127.0.0.1", "no address of a service"),
        ("http://127.0.0.1:9", "nobody answers"),
    ],
)
def test_where_no_service_is_nobody_goes(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replay(simulator(), url, VISITORS, None)
