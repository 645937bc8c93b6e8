"""A proxy in front of a Valkey that breaks connections at a chosen command, to prove what the code makes of it.

Each connection is one thread that handles one command at a time: the next is forwarded when the former has been
answered, also when both came in one send. So a test knows what has taken effect at the moment its rule is asked.
No publish/subscribe and no inline commands: a reply belongs to the one command that is under way.
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import hiredis

_CHUNK_BYTES = 1 << 16
_JOIN_LIMIT_S = 10.0
_INCOMPLETE = object()


class Action(Enum):
    """What becomes of a command.

    CUT_BEFORE closes both ends without forwarding it: it has no effect.
    CUT_AFTER forwards it, waits for the reply and closes both ends: it took effect and the client does not know.
    SWALLOW_REPLY forwards it and keeps its reply and all later ones of the connection, which stays open.
    """

    PASS = auto()
    CUT_BEFORE = auto()
    CUT_AFTER = auto()
    SWALLOW_REPLY = auto()


@dataclass(frozen=True)
class Command:
    """A command as the proxy met it: connections count from 1, and so do commands, over all connections."""

    connection: int
    number: int
    name: str  # in upper case
    args: tuple[bytes, ...]


class FaultProxy:
    """Listens on a new unix socket and passes everything to `upstream`, unless told otherwise.

    `on_command` may be set at any time. It is called in the connection's thread, may take its time (the other
    connections go on) and may do damage of its own, such as killing a process, before it answers.
    `url` is the address for clients; `commands` has the names of all commands seen, in order.
    """

    def __init__(self, upstream: str | Path) -> None:
        """Take the address as `unix://…`, `redis://host:port` or the path of a socket."""
        self.on_command: Callable[[Command], Action] | None = None
        self.commands: list[str] = []
        self._upstream = upstream
        self._path = Path(tempfile.mkdtemp(prefix="faults-")) / "s"
        self.url = f"unix://{self._path}"
        self._guard = threading.Lock()
        self._reply_bytes_max: int | None = None
        self._stop_listening: Callable[[], None] | None = None
        self._connections: list[_Connection] = []  # of all times

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.sever()
        shutil.rmtree(self._path.parent)

    def limit_reply_bytes(self, n: int) -> None:
        """Send `n` bytes of the next reply, of whichever connection, and close both ends."""
        self._reply_bytes_max = n

    def sever(self) -> None:
        """Drop all connections; return when they are gone."""
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        for connection in connections:
            if connection.thread is not threading.current_thread():  # it is, when a rule severs
                connection.thread.join(_JOIN_LIMIT_S)

    def accept(self) -> None:
        """Accept new connections (again)."""
        if self._stop_listening is None:
            self._stop_listening = _listen(self._path, self._serve)

    def refuse(self) -> None:
        """Accept no new connection, as a server that is down; the present ones go on."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    def _serve(self, client: socket.socket) -> None:
        try:
            upstream = _connect(self._upstream)
        except OSError:
            client.close()
            return
        connection = _Connection(self, len(self._connections) + 1, client, upstream)
        connection.thread.start()
        self._connections.append(connection)

    def _decide(self, connection: int, name: str, args: tuple[bytes, ...]) -> Action:
        with self._guard:
            self.commands.append(name)
            command = Command(connection, len(self.commands), name, args)
        rule = self.on_command
        return Action.PASS if rule is None else rule(command)


class _Cut(Exception):  # noqa: N818  # an order rather than an error
    """The connection ends here."""


class _Connection:
    def __init__(self, proxy: FaultProxy, number: int, client: socket.socket, upstream: socket.socket) -> None:
        self._proxy = proxy
        self._number = number
        self._client = client
        self._upstream = upstream
        self._requests = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._client_left = False
        self._silent = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def close(self) -> None:
        # Shut down and not closed: the thread that uses them wakes up, and closes them.
        for end in (self._client, self._upstream):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        # A protocol error ends the connection too, as it would at the server.
        with self._client, self._upstream, suppress(_Cut, OSError, hiredis.ProtocolError):
            # A client that has left is still served to the last command it sent, as the server would.
            while not self._client_left:
                self._hear_client()
                while (words := self._requests.gets()) is not _INCOMPLETE:
                    self._handle(words)

    def _handle(self, words: list[bytes]) -> None:
        action = self._proxy._decide(self._number, words[0].decode().upper(), tuple(words[1:]))
        if action is Action.CUT_BEFORE:
            raise _Cut
        self._upstream.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
        reply = self._reply()
        if action is Action.CUT_AFTER:
            raise _Cut
        # For good: the next reply in the place of this one is what no network does.
        self._silent |= action is Action.SWALLOW_REPLY
        if not self._silent:
            self._send_on(reply)

    def _reply(self) -> bytes:
        """Return the whole reply to the command under way, and hear meanwhile whether the client leaves."""
        replies = hiredis.Reader(notEnoughData=_INCOMPLETE)
        received = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(self._upstream, selectors.EVENT_READ)
            if not self._client_left:
                ready.register(self._client, selectors.EVENT_READ)
            while replies.gets() is _INCOMPLETE:
                ends = [key.fileobj for key, _ in ready.select()]
                if self._client in ends:
                    self._hear_client()
                    if self._client_left:
                        ready.unregister(self._client)
                        # Else a command that waits (XREAD BLOCK) would go on waiting, for nobody.
                        if not self._requests.has_data():
                            self._upstream.shutdown(socket.SHUT_WR)
                if self._upstream in ends:
                    chunk = self._upstream.recv(_CHUNK_BYTES)
                    if not chunk:
                        raise _Cut
                    received += chunk
                    replies.feed(chunk)
        return bytes(received)

    def _send_on(self, reply: bytes) -> None:
        with self._proxy._guard:
            limit, self._proxy._reply_bytes_max = self._proxy._reply_bytes_max, None
        with suppress(ConnectionError):  # a client that has left without it
            self._client.sendall(reply[:limit])
        if limit is not None:
            raise _Cut

    def _hear_client(self) -> None:
        chunk = b""
        with suppress(ConnectionError):
            chunk = self._client.recv(_CHUNK_BYTES)
        self._requests.feed(chunk)
        self._client_left = not chunk


def _listen(path: Path, serve: Callable[[socket.socket], None]) -> Callable[[], None]:
    """Serve connections in a thread and return what ends that."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    ending = threading.Event()

    def run() -> None:
        with listener:
            while True:
                client, _ = listener.accept()
                if ending.is_set():
                    client.close()
                    return
                serve(client)

    def stop() -> None:
        ending.set()
        # Closing a socket does not wake the thread that waits on it; one more connection does.
        with socket.socket(socket.AF_UNIX) as knock:
            knock.connect(str(path))
        thread.join(_JOIN_LIMIT_S)
        path.unlink()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return stop


def _connect(address: str | Path) -> socket.socket:
    parts = urlsplit(os.fspath(address))
    if parts.scheme == "redis":
        return socket.create_connection((parts.hostname, parts.port or 6379))
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(unquote(parts.path) if parts.scheme == "unix" else os.fspath(address))
    except OSError:
        connection.close()
        raise
    return connection
