"""Many screens as one cheap client: `viewers.py ADDRESS TOKEN COUNT` counts the changes that each open stream gets.

It says `open` when all have heard of the server. Then it reads how many changes there are to be on a line, waits until
all streams have had so many, ten seconds at most, and prints what each has had, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

import uvloop

CHANGE = b"event: change\n"
HEARTBEAT = b"event: heartbeat\n"


class Viewer(asyncio.Protocol):
    """One open stream."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self.changes = 0
        self.open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for the stream."""
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count the changes in it; what is cut in two is counted with the second piece."""
        data = self._tail + data
        self.changes += data.count(CHANGE)
        self._tail = data[1 - len(CHANGE) :]
        if not self.open.done() and HEARTBEAT in data:
            self.open.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        """Say so: no stream ends while it is measured."""
        if not self.open.done():
            self.open.set_exception(RuntimeError("the control room hung up"))


async def view(address: str, token: str, count: int) -> None:
    """Open the streams, count, and tell."""
    loop = asyncio.get_running_loop()
    to = urlsplit(address)
    request = (
        f"GET /api/stream HTTP/1.1\r\nHost: {to.netloc}\r\nAuthorization: Bearer {token}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ).encode()
    viewers = [Viewer(request) for _ in range(count)]
    for viewer in viewers:
        await loop.create_connection(lambda viewer=viewer: viewer, to.hostname, to.port)
    await asyncio.gather(*(viewer.open for viewer in viewers))
    print("open", flush=True)
    goal = int(await loop.run_in_executor(None, sys.stdin.readline))
    for _ in range(1_000):
        if all(viewer.changes >= goal for viewer in viewers):
            break
        await asyncio.sleep(0.01)
    print(json.dumps([viewer.changes for viewer in viewers]), flush=True)


if __name__ == "__main__":
    uvloop.run(view(sys.argv[1], sys.argv[2], int(sys.argv[3])))
