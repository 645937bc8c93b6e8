"""Servers that a test may break, and plain clients that look behind the product's back."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.runtime.embedded import embedded_server
from tests.waiting import wait_for


class OwnServer:
    """A Valkey with a folder of its own; its address stays the same over restarts."""

    def __init__(self, folder: Path, users: ExitStack) -> None:
        self._folder = folder
        self._users = users
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it, or start it again with what is on its disk."""
        self.url = self._users.enter_context(embedded_server(self._folder))

    def kill(self) -> None:
        """End it as the kernel does; return when nobody answers any more."""
        os.kill(int((self._folder / "server.lock").read_bytes()), signal.SIGKILL)
        wait_for(lambda: not self._answers(), what="the server to be gone")

    def client(self) -> redis.Redis:
        """Return a plain client of it; the caller closes it."""
        return plain_client(self.url)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


def plain_client(url: str) -> redis.Redis:
    """Return a client that retries nothing: a test that breaks a server wants to see it."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
