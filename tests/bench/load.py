"""A load of HTTP requests from keep-alive connections, as cheap as Python makes it: the client is not what is measured.

`load.py PORT FILE` sends what FILE holds: a list of requests for each connection. It prints how long it took and what
each request took, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import uvloop


class Connection(asyncio.Protocol):
    """One client: it sends its next request when the one before has been answered."""

    def __init__(self, requests: Iterable[bytes], done: asyncio.Future[None]) -> None:
        self._requests = iter(requests)
        self._done = done
        self._answer = b""
        self._sent_at = 0.0
        self.waits_s: list[float] = []

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._answer += data
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._answer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._answer) < end + 4 + length:
            return
        if not head.startswith(b"http/1.1 20"):
            self._done.set_exception(RuntimeError(self._answer.decode()))
            return
        self.waits_s.append(time.perf_counter() - self._sent_at)
        self._answer = b""
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        """End."""
        if not self._done.done():
            self._done.set_exception(RuntimeError("the server hung up"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)


async def load(port: int, clients: list[list[bytes]]) -> tuple[float, list[float]]:
    """Send everything; return the seconds it took, and the seconds of each request."""
    loop = asyncio.get_running_loop()
    connections: list[tuple[Connection, asyncio.Future[None]]] = []
    began = time.perf_counter()
    for requests in clients:
        done: asyncio.Future[None] = loop.create_future()
        connection = Connection(requests, done)
        connections.append((connection, done))
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", port)
    await asyncio.gather(*(done for _, done in connections))
    return time.perf_counter() - began, [wait for connection, _ in connections for wait in connection.waits_s]


if __name__ == "__main__":
    took_s, waits_s = uvloop.run(load(int(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes())))  # noqa: S301  # ours
    Path(sys.argv[3]).write_text(json.dumps({"seconds": took_s, "waits_s": waits_s}))
