"""A proxy in front of an HTTP server that breaks connections on command, as the way to it does.

It knows nothing of HTTP but the login page of a captive portal: it counts bytes. Each new connection takes the fault
that is set at that moment.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from contextlib import suppress
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

_CHUNK_BYTES: Final = 65_536
_JOIN_LIMIT_S: Final = 10.0
_PAGE: Final = b"<!doctype html><title>Welcome</title><form>Please log in to this network</form>"
LOGIN_PAGE: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    % (len(_PAGE), _PAGE)
)


class Fault(NamedTuple):
    """What happens to a connection.

    `request_bytes` and `reply_bytes` are let through; the next one cuts both ends, with a reset (RST) if `reset`.
    `swallow`: what the server answers never comes, and the connection stays open. `login_page`: a captive portal
    answers, and the server hears nothing. `drip`: the reply comes byte by byte.
    """

    request_bytes: int | None = None
    reply_bytes: int | None = None
    reset: bool = False
    swallow: bool = False
    login_page: bool = False
    drip: bool = False


NO_FAULT: Final = Fault()


class HttpFaults:
    """The proxy, to be entered as a context; `url` is its address, `fault` is for the connections from now on."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.fault = NO_FAULT
        self._connections: list[Connection] = []
        self._guard = threading.Lock()
        self._upstream = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        # Closing a socket does not wake the thread that waits on it; one more connection does.
        with suppress(OSError), socket.create_connection(self._listener.getsockname()):
            pass
        self._thread.join(_JOIN_LIMIT_S)
        self.sever()

    @property
    def last(self) -> Connection:
        """The latest connection."""
        with self._guard:
            return self._connections[-1]

    def sever(self) -> None:
        """Cut all connections; return when they are gone."""
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            connection.cut()
        for connection in connections:
            connection.thread.join(_JOIN_LIMIT_S)
            assert not connection.thread.is_alive()

    def _accept(self) -> None:
        with self._listener:
            while True:
                client, _ = self._listener.accept()
                if self._ending.is_set():
                    client.close()
                    return
                with self._guard:
                    self._connections = [known for known in self._connections if known.thread.is_alive()]
                    self._connections.append(Connection(client, self._upstream, self.fault))
                    self._connections[-1].thread.start()


class Connection:
    """One connection: what came through it so far, in `request` and `reply`, and whether its fault has cut it."""

    def __init__(self, client: socket.socket, upstream: object, fault: Fault) -> None:
        self.request = bytearray()
        self.reply = bytearray()
        self.bitten = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self._client = client
        self._address = upstream
        self._fault = fault
        self._knock, self._heard = socket.socketpair()

    def cut(self) -> None:
        """End it from outside."""
        with suppress(OSError):
            self._knock.send(b"x")

    def _serve(self) -> None:
        with self._client, self._knock, self._heard, suppress(OSError):
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._fault.login_page:
                self._portal()
                return
            with socket.create_connection(self._address) as server:  # type: ignore[arg-type]
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pump(server)
            if self.bitten and self._fault.reset:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _portal(self) -> None:
        while b"\r\n\r\n" not in self.request:
            if not (chunk := self._client.recv(_CHUNK_BYTES)):
                return
            self.request += chunk
        self.bitten = True
        self._client.sendall(LOGIN_PAGE)
        self._client.shutdown(socket.SHUT_WR)
        # A close with bytes unread would be a reset, and take the page away again.
        while self._client.recv(_CHUNK_BYTES):
            pass

    def _pump(self, server: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            for end in (self._client, server, self._heard):
                ready.register(end, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self._heard:
                        return
                    if key.fileobj is self._client:
                        going_on = self._pass(self._client, server, self.request, self._fault.request_bytes)
                    else:
                        going_on = self._pass(server, self._client, self.reply, self._fault.reply_bytes)
                    if not going_on:
                        return

    def _pass(self, source: socket.socket, target: socket.socket, passed: bytearray, most: int | None) -> bool:
        chunk = source.recv(_CHUNK_BYTES)
        allowed = len(chunk) if most is None else max(most - len(passed), 0)
        passed += chunk
        if target is self._client and self._fault.swallow:
            self.bitten = True
            return bool(chunk)
        if target is self._client and self._fault.drip:
            for at in range(len(chunk[:allowed])):
                target.sendall(chunk[at : at + 1])
        else:
            target.sendall(chunk[:allowed])
        self.bitten |= len(chunk) > allowed
        return bool(chunk) and not self.bitten
