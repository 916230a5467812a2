"""Real server processes, asked over real sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def ask(url: str, body: dict[str, object] | None = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


@contextmanager
def served(
    model_dir: Path,
    log: Path,
    n_workers: int,
    *,
    variables: Mapping[str, str] | None = None,
    errors: IO[bytes] | None = None,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Yield where `rec-engine serve` answers, and its process.

    `variables` are set for it; its log lines go to `errors`.
    """
    port = free_port()
    flags = ["--model-dir", str(model_dir), "--host", "127.0.0.1", "--port", str(port), "--workers", str(n_workers)]
    environment = os.environ | {"USE_MEMORY_CACHE": "true", "REC_ENGINE_STORE__URL": f"sqlite:///{log}"}
    environment |= variables or {}
    command = [sys.executable, "-m", "rec_engine", "serve", *flags]
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=errors) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                ask(f"{url}/ready")
                break
            except OSError:
                assert process.poll() is None, "the server stopped while starting"
                time.sleep(0.1)
        try:
            yield url, process
        finally:  # a test that fails must not wait for a service that goes on
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
