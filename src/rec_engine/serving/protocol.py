"""uvicorn's HTTP protocol with bounds on what one client may cost: time to send a request, bytes of its head."""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
CHECKS_A_LIMIT = 4
"""How often a connection is looked at within the time that a request may take; it may take that part more."""


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on clients that send their requests a byte at a time, or heads without end.

    A connection is looked at a few times within the limit, instead of a timer for each request: requests cost nothing.

    Attributes:
        receive_seconds: how long a request may take to arrive, head and body; of all connections of the process.
    """

    receive_seconds = 10.0
    _since: float | None = None
    """When the request that is arriving began, on the clock of the loop; None between requests."""
    _is_in_head = False
    _n_head_bytes = 0
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request: who opens a connection has one to send."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._look:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head:
            self._n_head_bytes += len(data)
            if self._n_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Begin to count time and bytes."""
        self._since, self._is_in_head, self._n_head_bytes = self.loop.time(), True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Count no more bytes; what follows is bounded by the length that the head declares."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Let the request take from here on as long as its answer takes."""
        self._since = None
        super().on_message_complete()

    def _look_later(self) -> None:
        self._look = self.loop.call_later(self.receive_seconds / CHECKS_A_LIMIT, self._look_now)

    def _look_now(self) -> None:
        if self.transport.is_closing():
            return
        if self._since is not None and self.flow.read_paused:
            self._since = self.loop.time()  # this process does not read on, the client waits for it
        elif self._since is not None and self.loop.time() - self._since > self.receive_seconds:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
            return
        self._look_later()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer in plain text, where no answer has begun, and hang up."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            text = status.phrase.encode()
            head = b"HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, text, len(text)) + text)
        self.transport.close()
