"""The gateway's composition root: settings to an application, and a uvicorn that serves it until told to stop.

`fieldtally gateway` runs it; `uvicorn services.gateway.app:app` does too, configured by the environment.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from services.gateway.docs import DOCS_CSS, docs_page
from services.gateway.openapi import asyncapi_bytes, openapi, openapi_bytes
from services.gateway.protocol import LimitedProtocol
from services.gateway.routes import EVENTS, Gateway, Pages
from services.gateway.side import GatewaySide
from services.gateway.tokens import RateLimit, Tokens
from services.runtime.clock import monotonic, now
from services.runtime.collector import calm_collector
from services.runtime.embedded import embedded_server
from services.runtime.ending import end
from services.runtime.errors import FieldtallyError
from services.runtime.logging import set_up_logging
from services.runtime.serving import Application
from services.runtime.serving import serve as serve_application
from services.runtime.settings import Settings, SideSettings, hide_password, read_settings
from services.store.connection import check_server, connect, refusing_writes
from services.store.door import RedisDoor
from services.store.glance import RedisGlance
from services.store.keys import PartitionKeys
from services.store.principals import RedisPrincipals
from services.store.whole_log import open_log

LOOK_S: Final = 0.5
SHUTDOWN_S: Final = 10
DOORS: Final = 2
"""Turns of a side at once: the gateway works on one while the disk works on the other. More only make them smaller."""


class GatewayApp(Application):
    """The ASGI application with what lives as long as it does: the connection, and the looks at each side."""

    def __init__(self, settings: Settings, url: str, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._url = url
        self._logger = logger
        self._client = connect(url)
        sides = [self._side(side, PartitionKeys(settings.prefix, side.side), settings) for side in settings.sides]
        self.gateway = Gateway(
            sides,
            Tokens(RedisPrincipals(self._client, url, settings.prefix), monotonic, now),
            RateLimit(settings.rate_limit, monotonic),
            _pages(settings),
            logger,
            now,
            monotonic,
        )
        self.litestar = self.gateway.application(settings.http_origins)
        alone = () if settings.http_origins else (EVENTS,)

        async def http(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] in alone:
                await self.gateway.events_alone(scope, receive, send)
            else:
                await self.litestar(scope, receive, send)

        self.http = http
        self._watching: asyncio.Task[None] | None = None

    def _side(self, side: SideSettings, keys: PartitionKeys, settings: Settings) -> GatewaySide:
        return GatewaySide(
            side,
            open_log(self._client, self._url, keys, settings.archive_dir),
            [RedisDoor(self._client, self._url, keys) for _ in range(DOORS)],
            RedisGlance(self._client, self._url, keys),
            settings.lag_limit,
        )

    async def start(self) -> None:
        """Connect, and begin to look."""
        await check_server(self._client, self._url)
        await self._look()
        calm_collector()
        self._watching = asyncio.create_task(self._watch())
        self._logger.info("gateway_started", sides=list(self.gateway.sides), server=hide_password(self._url))

    async def stop(self) -> None:
        """Look no more, and give up the connections."""
        if self._watching:
            await end(self._watching)
        for side in self.gateway.sides.values():
            await side.close()
        await self._client.aclose()
        self.gateway.write_answered()
        if self._watching:
            self._logger.info("gateway_stopped")

    async def _look(self) -> None:
        await asyncio.gather(*(side.look() for side in self.gateway.sides.values()))
        try:
            self.gateway.full = await refusing_writes(self._client, self._url)
        except FieldtallyError:  # that the server is away, the sides know
            self.gateway.full = None

    async def _watch(self) -> None:
        away = False
        while True:
            await asyncio.sleep(LOOK_S)
            self.gateway.intake.end_slow()
            await self._look()
            failure = next((side.failure for side in self.gateway.sides.values() if side.failure), None)
            if failure and not away:
                self._logger.warning("server_away", reason=str(failure))
            elif away and not failure:
                self._logger.info("server_back")
            away = failure is not None


def serve(settings: Settings, url: str, logger: FilteringBoundLogger, listener: socket.socket) -> bool:
    """Serve on a listening socket until SIGTERM or Ctrl-C; return whether it was the latter.

    Raises:
        UnreachableError: the server did not answer at the start. Later that is 503 to those who ask.

    """
    make = partial(GatewayApp, settings, url, logger)
    return serve_application(
        make, listener, http=LimitedProtocol, proxy_headers=False, timeout_graceful_shutdown=SHUTDOWN_S
    )


def _pages(settings: Settings) -> Pages:
    sides = [side.side for side in settings.sides]
    return Pages(
        openapi=openapi_bytes(sides),
        asyncapi=asyncapi_bytes(sides, settings.prefix),
        docs=docs_page(openapi(sides)),
        docs_css=DOCS_CSS,
    )


def __getattr__(name: str) -> GatewayApp:
    """Build `app` for `uvicorn services.gateway.app:app`, not for whoever merely imports this module."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = read_settings(os.environ)
    # It serves until the process ends; the kernel then drops the lock that keeps the embedded server.
    url = settings.redis_url or _embedded.enter_context(embedded_server(settings.data_dir))
    return GatewayApp(settings, url, set_up_logging(settings.log_format, settings.log_level))


_embedded: Final = ExitStack()
