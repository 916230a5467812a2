"""Writes src/rec_engine/client_async.py from client_sync.py: `python scripts/async_client.py`."""

import re
from pathlib import Path

ROOM = Path(__file__).parents[1] / "src" / "rec_engine"
SYNC, ASYNC = ROOM / "client_sync.py", ROOM / "client_async.py"
CHANGES = (
    ('"""A typed client of the service, a method a route."""', '"""Made by `python scripts/async_client.py`."""'),
    ("class RecEngineClient:", "class AsyncRecEngineClient:"),
    ("as seen from Python: a method a route", "as seen from Python with `await`: a method a route"),
    ("import time\n", "import asyncio\n"),
    ("time.sleep", "await asyncio.sleep"),
    ("httpx2.BaseTransport", "httpx2.AsyncBaseTransport"),
    ("httpx2.Client", "httpx2.AsyncClient"),
    ("self._http.request", "await self._http.request"),
    ("self._http.close", "await self._http.aclose"),
    ("self.close()", "await self.aclose()"),
    ("def close", "def aclose"),
    ("__enter__", "__aenter__"),
    ("__exit__", "__aexit__"),
    ("self._send(Call", "await self._send(Call"),
)


def asynchronous(text: str) -> str:
    """Return the asynchronous client's source, made from that of the synchronous one."""
    for old, new in CHANGES:
        if old not in text:
            raise ValueError(f"{SYNC} lacks {old!r}")
        text = text.replace(old, new)
    return re.sub(r"^    def (?!__init__)", "    async def ", text, flags=re.MULTILINE)


if __name__ == "__main__":
    ASYNC.write_text(asynchronous(SYNC.read_text(encoding="utf-8")), encoding="utf-8")
