"""`control-room`: serve the screen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

from schemas.vocabulary import Position, Side
from services.cli.command import INTERRUPTED, command, settings
from services.cli.gateway import say_when_it_serves, told_to_end
from services.cli.server import kept_running, server_url
from services.control_room.app import SHUTDOWN_S, ControlRoomApp
from services.control_room.past import Rebuild
from services.replay.processes import rebuild_sides
from services.runtime.errors import UnreachableError
from services.runtime.keeper import end_with_parent
from services.runtime.logging import set_up_logging
from services.runtime.serving import listen, serve
from services.runtime.settings import Settings
from services.tally.fold import State


@command("control-room", "control-room")
def control_room() -> int:
    """Serve the control-room screen.

    It serves at FIELDTALLY_HTTP_HOST and FIELDTALLY_SCREEN_PORT until it is stopped. Who looks logs in with a token
    that `fieldtally devices enrol NAME --role viewer --side SI` gives out, and sees the sides that it was given for:
    repeat --side for several.
    """
    chosen = settings()
    logger = set_up_logging(chosen.log_format, chosen.log_level)
    with (
        told_to_end(),
        listen(chosen.http_host, chosen.screen_port, "SCREEN_PORT") as listener,
        server_url(chosen) as url,
        kept_running(chosen, logger),
        rebuilding(chosen, url) as rebuild,
    ):
        if chosen.log_level in ("debug", "info"):
            where = f"screen on {chosen.screen_address}; Ctrl-C ends"
            threading.Thread(target=say_when_it_serves, args=(listener.getsockname(), where), daemon=True).start()
        make = partial(ControlRoomApp, chosen, url, logger, rebuild)
        interrupted = serve(make, listener, timeout_graceful_shutdown=SHUTDOWN_S, proxy_headers=True)
    return INTERRUPTED if interrupted else 0


@contextmanager
def rebuilding(chosen: Settings, url: str) -> Iterator[Rebuild]:
    """Yield what rebuilds sides in a process of its own: the screens of the present do not wait for it."""
    # Spawned, not forked: by then there are threads. Made when somebody first asks for the past: with it comes a
    # process of Python's own that must not be told to end while it starts.
    pools: list[ProcessPoolExecutor] = []

    async def rebuild(stops: Mapping[Side, Position]) -> Mapping[Side, State]:
        if not pools:
            pools.append(ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent))
        try:
            return await asyncio.get_running_loop().run_in_executor(pools[0], rebuild_sides, chosen, url, stops)
        except BrokenProcessPool as error:
            pools.clear()
            raise UnreachableError("the process that rebuilds the past was ended: ask again") from error

    try:
        yield rebuild
    finally:
        for pool in pools:
            pool.shutdown()
