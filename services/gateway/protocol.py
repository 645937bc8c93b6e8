"""uvicorn's HTTP protocol with limits on what comes before a request's body: uvicorn has none for httptools."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 65_536
HEAD_S: Final = 30


class LimitedProtocol(HttpToolsProtocol):
    """Hangs up on a connection whose next request line and headers grow too long, or do not come to an end in time.

    Nobody needs a token for either, so they would be a way to take the gateway's memory and connections.
    """

    _head_bytes = 0
    _in_head = True
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part; a head that came whole, as nearly every one does, costs nothing here."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.transport.close()
            elif self._late is None:
                self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._in_time()
        super().on_headers_complete()

    def _in_time(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None
