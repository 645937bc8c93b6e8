"""Opens what a command works on: the server, embedded or given, the logs and tallies on it, a projector beside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NamedTuple

from structlog.typing import FilteringBoundLogger

from schemas.vocabulary import Side
from services.cli.output import note
from services.replay.audit import Audited
from services.runtime.embedded import embedded_server, ended, restarting
from services.runtime.errors import UnreachableError, UnsoundTalliesError
from services.runtime.keeper import end_with_parent
from services.runtime.settings import ENV_PREFIX, Settings, SideSettings
from services.store.connection import check_server, connect
from services.store.contract import LogExtent
from services.store.keys import PartitionKeys
from services.store.loading import load_fitting
from services.store.log import RedisLog
from services.store.tally_store import RedisTallyStore

STOP_S: Final = 10


class SideStore(NamedTuple):
    """One side's log and tallies."""

    side: SideSettings
    log: RedisLog
    store: RedisTallyStore

    def audited(self) -> Audited:
        """Return this as what an audit takes."""
        return Audited(self.side, self.log, self.store)


@contextmanager
def server_url(settings: Settings) -> Iterator[str]:
    """Yield the address of the server; without one in the settings, the embedded one serves as long as this lasts."""
    if settings.redis_url:
        yield settings.redis_url
    else:
        with embedded_server(settings.data_dir, announce=note) as url:
            try:
                yield url
            except UnreachableError as error:  # it speaks of an address that nobody has set
                raise ended(settings.data_dir) or error from error


@contextmanager
def kept_running(settings: Settings, logger: FilteringBoundLogger) -> Iterator[None]:
    """Start the embedded server again, should it die, for as long as this lasts; for use within `server_url`.

    It is for what runs long, and looks in a thread: whoever forks does so before. A server in the settings is
    somebody else's to start.
    """
    if settings.redis_url:
        yield
    else:
        with restarting(settings.data_dir, logger):
            yield


@contextmanager
def projector_beside(url: str, **changed: str) -> Iterator[subprocess.Popen[str]]:
    """Run a projector as a process of its own for as long as this lasts, with some settings changed."""
    with program_beside("project", url, **changed) as process:
        yield process


@contextmanager
def program_beside(command: str, url: str, **changed: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of our commands as a process of its own for as long as this lasts, with some settings changed."""
    environment = os.environ | {f"{ENV_PREFIX}{name}": text for name, text in ({"REDIS_URL": url} | changed).items()}
    # Ctrl-C in the terminal is for us, and we end it: what is ignored now, it ignores until it can handle it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(  # noqa: S603  # the program is this very Python, and no shell reads the words
            [sys.executable, "-m", "services.cli", command],  # our own program
            env=environment,
            text=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # there is no thread yet, and it only asks the kernel
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            note(f"`{command}` did not end when asked; ending it")
            process.kill()
            process.wait()


@asynccontextmanager
async def side_stores(settings: Settings) -> AsyncIterator[list[SideStore]]:
    """Yield the log and tallies of every side."""
    with server_url(settings) as url:
        client = connect(url)
        try:
            await check_server(client, url)
            keys = [PartitionKeys(settings.prefix, side.side) for side in settings.sides]
            yield [
                SideStore(side, RedisLog(client, url, key), RedisTallyStore(client, url, key))
                for side, key in zip(settings.sides, keys, strict=True)
            ]
        finally:
            await client.aclose()


async def log_extents(settings: Settings) -> dict[Side, LogExtent]:
    """Return how far the log of every side reaches; DamagedLogError if one no longer reaches its live tallies."""
    async with side_stores(settings) as stores:
        return {store.side.side: await _extent(store) for store in stores}


async def _extent(store: SideStore) -> LogExtent:
    try:
        return (await load_fitting(*store)).extent
    except UnsoundTalliesError:  # the log may be whole all the same, and a replay needs nothing else
        return await store.log.extent()
