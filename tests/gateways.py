"""Gateways to send to and to harm: a real uvicorn on a free port of the loopback, and tokens for it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import httpx
import msgspec
import redis
import uvicorn
import uvloop

from schemas.http import BATCH_TYPE, EVENT_TYPE
from schemas.principals import Principal, Role, State
from services.gateway.app import GatewayApp
from services.gateway.protocol import LimitedProtocol
from services.runtime.serving import KEEP_ALIVE_S
from services.runtime.settings import Settings
from services.store.principals import token_digest
from tests import given
from tests.projectors import Lines
from tests.waiting import wait_for

LONG_AGO: Final = datetime(2024, 1, 1, tzinfo=UTC)


@contextmanager
def running_gateway(settings: Settings, lines: Lines | None = None, url: str | None = None) -> Iterator[str]:
    """Serve in a thread of this process; yield the address. `url` is the server's, if not that of the settings."""
    address = url or settings.redis_url
    assert address
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app: list[GatewayApp] = []
        servers: list[uvicorn.Server] = []

        async def serve() -> None:
            app.append(GatewayApp(settings, address, (Lines() if lines is None else lines).logger()))
            config = uvicorn.Config(
                app[0], http=LimitedProtocol, ws="none", lifespan="on", log_config=None, log_level="critical",
                access_log=False, proxy_headers=False, server_header=False, timeout_graceful_shutdown=1,
                timeout_keep_alive=KEEP_ALIVE_S,
            )  # fmt: skip
            servers.append(uvicorn.Server(config))
            with suppress(SystemExit):  # what uvicorn makes of an application that did not start
                await servers[0].serve(sockets=[listener])

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the product does
                runner.run(serve())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_for(lambda: (servers and servers[0].started) or not thread.is_alive(), what="the gateway to serve")
            if app[0].failure:
                raise app[0].failure
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            servers[0].should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def enrolled(
    client: redis.Redis,
    prefix: str,
    role: Role = "unit",
    side: str = "SI",
    unit: str | None = None,
    device: str = "9f3c2a",
    state: State = "active",
    expires: datetime | None = None,
) -> str:
    """Make a principal, as `devices enrol` does, and return its token."""
    token = secrets.token_urlsafe(32)
    principal = Principal(
        role=role,
        side=side,
        unit=unit or (f"{side}-DESK" if role == "desk" else f"{side}-MP-07"),
        device=device,
        enrolled=LONG_AGO,
        state=state,
        expires=expires,
    )
    client.hset(f"{prefix}:principals", token_digest(token), msgspec.json.encode(principal))
    return token


class Sender:
    """A patrol app that knows nothing: it sends what it is given, and returns the answer."""

    def __init__(self, address: str, token: str | None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # Without certificates, which take longer to read than most tests.
        self._client = httpx.Client(base_url=address, headers=headers, timeout=20, verify=False)  # noqa: S501  # no TLS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def one(self, event: bytes, **headers: str) -> httpx.Response:
        """Send one report."""
        return self._client.post("/v1/events", content=event, headers={"content-type": EVENT_TYPE, **headers})

    def batch(self, *events: bytes, **headers: str) -> httpx.Response:
        """Send a batch."""
        body = b"[" + b",".join(events) + b"]"
        return self._client.post("/v1/events", content=body, headers={"content-type": BATCH_TYPE, **headers})

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send any request."""
        return self._client.request(method, path, **options)


def recently(**ago: float) -> str:
    """Return a time a while ago, as a device writes it: one that admission takes."""
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def reported(number: int, **head: Any) -> bytes:
    """Return an apprehension outside any operation, reported just now."""
    return given.apprehension(id=number, **{"time": recently(minutes=1), **head})
