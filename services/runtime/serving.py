"""Serves an ASGI application on a listening socket until told to stop, with uvicorn and an exit that says how."""

from __future__ import annotations

import errno
import os
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import uvicorn
import uvloop

from services.runtime.errors import FieldtallyError, UsageError
from services.runtime.signals import handlers, run_loop

KEEP_ALIVE_S: Final = 60
BACKLOG: Final = 512

ASGIApplication: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


class Application(ABC):
    """An ASGI application with what lives as long as it does, and keeps what its start failed with."""

    http: ASGIApplication

    def __init__(self) -> None:
        self.failure: FieldtallyError | None = None

    @abstractmethod
    async def start(self) -> None:
        """Begin, before the first request; a FieldtallyError says why not."""

    @abstractmethod
    async def stop(self) -> None:
        """Give everything up, after the last answer."""

    def ending(self) -> None:  # noqa: B027  # most have nothing that goes on for ever
        """Hear that serving ends, before the answers under way are waited for: end those that would go on for ever."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request, or start and stop with the server."""
        if scope["type"] != "lifespan":
            await self.http(scope, receive, send)
            return
        await receive()
        try:
            await self.start()
        except FieldtallyError as error:
            self.failure = error
            await self.stop()
            await send({"type": "lifespan.startup.failed", "message": f"fieldtally: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


class _Server(uvicorn.Server):
    """A uvicorn that ends with its own exit code: the usual one kills itself once more with the signal it was sent."""

    def __init__(self, app: Application, **options: Any) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                **options,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.ending()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = handlers()
        for number in before:
            signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return signal.SIGINT in self._captured_signals


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Return a socket that listens; UsageError names the setting of the port if it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        number: int = getattr(error, "errno", None) or 0
        why = os.strerror(number) if number in errno.errorcode else "no such address"
        raise UsageError(
            f"cannot listen on {host} port {port}: {why}; set FIELDTALLY_HTTP_HOST or FIELDTALLY_{setting}"
        ) from error


def serve(make: Callable[[], Application], listener: socket.socket, **options: Any) -> bool:
    """Serve what `make` makes in the loop that serves it, until SIGTERM or Ctrl-C; return whether it was the latter.

    Raises:
        FieldtallyError: what the application could not start for.

    """
    return run_loop(_serve(make, listener, options), uvloop.new_event_loop)


async def _serve(make: Callable[[], Application], listener: socket.socket, options: dict[str, Any]) -> bool:
    app = make()
    server = _Server(app, **options)
    try:
        await server.serve(sockets=[listener])
    except SystemExit:  # what uvicorn makes of an application that did not start
        if app.failure:
            raise app.failure from None
        raise
    return server.interrupted
