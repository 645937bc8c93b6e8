"""`gateway`: take reports over HTTP into the log."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from services.cli.command import INTERRUPTED, command, settings
from services.cli.output import note
from services.cli.server import kept_running, server_url
from services.gateway.app import serve
from services.runtime.logging import set_up_logging
from services.runtime.serving import listen
from services.runtime.settings import Settings
from services.runtime.signals import comes_again


@command("gateway", "gateway")
def gateway() -> int:
    """Take reports over HTTP into the log.

    It serves at FIELDTALLY_HTTP_HOST and FIELDTALLY_HTTP_PORT until it is stopped; `/docs` there tells the rest. Tokens
    come from `fieldtally devices enrol`. Exit code 3: the server cannot be reached at the start; later, whoever reports
    is asked to try again.
    """
    chosen = settings()
    logger = set_up_logging(chosen.log_format, chosen.log_level)
    with (
        told_to_end(),
        listen(chosen.http_host, chosen.http_port, "HTTP_PORT") as listener,
        server_url(chosen) as url,
        kept_running(chosen, logger),
    ):
        interrupted = serve_and_say(chosen, url, logger, listener, "Ctrl-C ends")
    return INTERRUPTED if interrupted else 0


@contextmanager
def told_to_end() -> Iterator[None]:
    """Take SIGTERM, and a terminal that closes, for being told to end: exit code 0, whenever it comes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    hook = sys.unraisablehook
    signal.signal(signal.SIGTERM, _end)
    comes_again(signal.SIGTERM, _end, SystemExit)
    if before[signal.SIGHUP] is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, _hang_up)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_and_say(chosen: Settings, url: str, logger: FilteringBoundLogger, listener: socket.socket, ends: str) -> bool:
    """Serve until told to end, and say where, once it does; return whether Ctrl-C ended it."""
    where = f"gateway on {chosen.http_address}, described at {chosen.http_address}/docs; {ends}"
    threading.Thread(target=say_when_it_serves, args=(listener.getsockname(), where), daemon=True).start()
    try:
        return serve(chosen, url, logger, listener)
    finally:
        # The gateway has put back the system's ways. We are ending: to be told so again must not cut us off.
        signal.signal(signal.SIGTERM, _go_on)


def say_when_it_serves(address: tuple[str, int], where: str) -> None:
    """Tell a person where it serves, once it does."""
    # The socket listens already: one question waits there until it is answered, or refused by a gateway that fails.
    connection = http.client.HTTPConnection(address[0], address[1])
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health/live")
        connection.getresponse()
        note(where)
    connection.close()


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, _go_on)
    raise SystemExit(0)


def _hang_up(_number: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _go_on(_number: int, _frame: FrameType | None) -> None:
    return
