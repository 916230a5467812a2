"""A running service, asked from outside as a balancer and Prometheus ask it."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Literal

from rec_engine.pipeline.replay import KEY_VARIABLE

TIMEOUT_SECONDS = 5.0
METRIC = "rec_engine_"
_Found = tuple[Literal["ok", "warning", "fault"], str, str]
_FORBIDDEN = {401, 403}
_NOT_READY = 503


def probe(url: str, version: str | None) -> Iterator[_Found]:
    """Yield state, message and hint of /health, /ready and /metrics.

    Args:
        url: address of the service.
        version: that is current in the registry; None where it is not known.
    """
    status, text = _ask(f"{url}/health")
    if status is None:
        yield "fault", f"{url} does not answer: {text}", "is it running, is the address right?"
        return
    if status >= _NOT_READY or status // 100 != 2:  # noqa: PLR2004 - the class of success
        yield "fault", f"{url}/health answers {status}", "see the log of the service"
    status, text = _ask(f"{url}/ready")
    if status != 200:  # noqa: PLR2004 - OK
        yield "fault", f"{url}/ready answers {status}: no model is loaded", "see the log of the service"
    else:
        yield _served(url, text, version)
    status, text = _ask(f"{url}/metrics")
    if status in _FORBIDDEN:
        yield "warning", f"{url}/metrics asks for a key", f"set {KEY_VARIABLE} to one, and give Prometheus one"
    elif status != 200 or METRIC not in text:  # noqa: PLR2004 - OK
        yield "fault", f"{url}/metrics answers {status}", "see the log of the service"
    else:
        yield "ok", f"{url}/metrics has {sum(not line.startswith('#') for line in text.splitlines()):,} values", ""


def _served(url: str, text: str, version: str | None) -> _Found:
    try:
        served = json.loads(text)["model_version"]
    except (ValueError, KeyError, TypeError):
        return "fault", f"{url}/ready is not of this service", "is the address right?"
    if version is not None and served != version:
        hint = "it changes over within seconds; where it does not, see its log, and whether it has this --model-dir"
        return "warning", f"{url} serves {served}, and {version} is current", hint
    return "ok", f"{url} serves {served}", ""


def _ask(url: str) -> tuple[int | None, str]:
    """Return status and body; None and the reason where nobody answers."""
    key = os.environ.get(KEY_VARIABLE)
    request = urllib.request.Request(url)  # noqa: S310 - checked by the caller
    if key:  # for this address alone: where it leads elsewhere, nobody else is to have the key
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - checked by the caller
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, ""
    except (OSError, ValueError, HTTPException) as error:
        return None, str(getattr(error, "reason", error)).strip()
