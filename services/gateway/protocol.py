"""uvicorn's HTTP protocol with limits on what costs no token: heads, trailers, and bodies that nobody reads.

uvicorn has none of them for httptools.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from schemas.http import PROBLEM_TYPE, REQUEST_BYTES_MAX, problem

HEAD_BYTES_MAX: Final = 65_536
"""For request line and headers, for trailers, and for whatever else comes that is no body."""
HEAD_S: Final = 30
LINGER_S: Final = 10
LINGER_BYTES_MAX: Final = 8 * REQUEST_BYTES_MAX
"""How long, and for how much, a client that was answered already may go on with the body that nobody reads."""
PIPELINED_MAX: Final = 16
"""Requests that may wait for the answer to one before them on the same connection."""

_HEAD: Final = b"HTTP/1.1 "
_CONTINUE: Final = b"HTTP/1.1 100 "
_UNREADABLE: Final = "this is no request as HTTP/1.1 has it: check the request line, the headers and the length"
_FRAMED_OTHERWISE: Final = "send the body with Content-Length, or with the one Transfer-Encoding `chunked` in HTTP/1.1"


class _Awaited(Enum):
    """What a connection is to bring next."""

    HEAD = auto()
    BODY = auto()
    NOTHING = auto()
    END = auto()


class LimitedProtocol(HttpToolsProtocol):
    """Hangs up on who sends a head, trailers or an unread body without end, in length or in time.

    Nobody needs a token for any of them, so they would be a way to take the gateway's memory and connections. Who is
    still sending when the answer is out gets to read it: the rest of the body is let pass by, within limits; the
    connection goes on if it was all of it.
    """

    _awaited = _Awaited.HEAD
    _run = 0  # bytes since the last that belonged to a body, or ended a head
    _passed_by = 0
    _late: asyncio.TimerHandle | None = None
    _stopping = False
    _refusal = _UNREADABLE

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part; a request that came whole, as nearly every one does, costs nothing here."""
        if self._awaited is _Awaited.END:
            self._let_pass(len(data))
            return
        self._run += len(data)
        super().data_received(data)
        if self._awaited is _Awaited.NOTHING:
            return
        if self._run > HEAD_BYTES_MAX:
            self.transport.close()
        elif self._awaited is _Awaited.HEAD:
            if self._late is None:
                self._late = self.loop.call_later(HEAD_S, self.transport.close)
        elif self._awaited is _Awaited.BODY:
            if self.cycle.response_complete:
                self._let_pass(len(data))
            else:
                self.cycle.transport = _Lingering(self)  # type: ignore[assignment]

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._awaited = _Awaited.HEAD

    def on_headers_complete(self) -> None:
        """The head is there. What it says of the body's length must leave no room for two readings."""
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or self.parser.get_http_version() != "1.1"):
            self._refusal = _FRAMED_OTHERWISE
            raise ValueError(self._refusal)
        if len(self.pipeline) >= PIPELINED_MAX:
            raise ValueError("too many requests in a row")
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # whose answer has a head alone
            self.cycle.transport = InOnePiece(self.transport)  # type: ignore[assignment]
        self._awaited = _Awaited.BODY
        self._run = 0
        self._in_time()
        self.headers = []  # trailers go there and nowhere: they must not pass for headers of the request

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._run = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there."""
        super().on_message_complete()
        if self.cycle.response_complete:
            self._awaited = _Awaited.HEAD
            self._in_time()
        else:
            self._awaited = _Awaited.NOTHING

    def on_response_complete(self) -> None:
        """An answer is out. A body that has not come whole has nobody who waits for it any more."""
        super().on_response_complete()
        if not self.cycle.response_complete or self.transport.is_closing():
            return  # the answer was to a request before the last
        if self._awaited is _Awaited.NOTHING:
            self._awaited = _Awaited.HEAD
        elif self._awaited is _Awaited.BODY:
            self._linger()

    def send_400_response(self, _msg: str) -> None:
        """Refuse what the parser cannot read, as any other request, and hang up."""
        cycle = self.cycle
        underway = cycle is not None and not cycle.response_complete
        if underway and self._awaited is not _Awaited.BODY:  # what came whole before it is answered yet
            self._awaited = _Awaited.END
            cycle.keep_alive = False
            cycle.transport = _Lingering(self)  # type: ignore[assignment]
            return
        if self.pipeline:
            self.transport.close()
            return
        if underway or self._awaited is not _Awaited.BODY:
            refused = msgspec.json.encode(problem("malformed-request", 400, self._refusal))
            headers = [
                *self.server_state.default_headers,
                (b"content-type", PROBLEM_TYPE.encode()),
                (b"content-length", b"%d" % len(refused)),
                (b"connection", b"close"),
            ]
            head = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, refused))
        if underway:
            cycle.disconnected = True
            cycle.message_event.set()
        self.hang_up()

    def shutdown(self) -> None:
        """Stop with the server, which waits for nobody who lingers."""
        self._stopping = True
        super().shutdown()

    def hang_up(self) -> None:
        """End the connection; who is still sending gets to read the answer first."""
        if self.transport.is_closing():
            return
        if self._awaited is _Awaited.NOTHING or self._stopping:
            self.transport.close()
            return
        self._awaited = _Awaited.END
        self.transport.write_eof()
        self._linger()

    def _linger(self) -> None:
        self._passed_by = 0
        self._in_time()
        self._late = self.loop.call_later(LINGER_S, self.transport.close)

    def _let_pass(self, length: int) -> None:
        self._passed_by += length
        if self._passed_by > LINGER_BYTES_MAX:
            self.transport.close()

    def _in_time(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None


class InOnePiece:
    """A connection as an answer sees it: its head goes out with the first of its body, in one write instead of two."""

    __slots__ = ("_head", "_transport", "is_closing")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Keep a head back; write anything else, behind the head that was kept."""
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(_HEAD) and not data.startswith(_CONTINUE):
            self._head = data
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Hang up, with the head of an answer that has no more."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()


class _Lingering:
    """A connection as the answer to an unfinished request sees it: it closes gently.

    A bare close while bytes come in is a reset, which may take the answer away from who has not read it yet.
    """

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        """Hang up, with time to read."""
        self._protocol.hang_up()
