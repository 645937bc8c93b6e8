"""Opens what a command works on: the server, embedded or given, the logs and tallies on it, a projector beside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Final, NamedTuple

from structlog.typing import FilteringBoundLogger

from schemas.vocabulary import START, Side, order
from services.cli.output import note
from services.cli.selectors import NOT_CUT, AsOf
from services.replay.audit import Audited
from services.replay.rebuild import Rebuildable
from services.runtime.embedded import embedded_server, ended, restarting, running_server
from services.runtime.errors import DamagedLogError, FieldtallyError, UnreachableError, UnsoundTalliesError, UsageError
from services.runtime.keeper import end_with_parent
from services.runtime.settings import ENV_PREFIX, Settings, SideSettings, hide_password
from services.runtime.signals import ENDING, run_loop
from services.runtime.stops import readable, time_of
from services.store.connection import check_server, connect
from services.store.contract import LogExtent, Trimmed
from services.store.generations import RedisGenerations
from services.store.glance import RedisGlance
from services.store.keys import PartitionKeys
from services.store.loading import load_fitting, require_one_log
from services.store.log import RedisLog
from services.store.requeued import RedisRequeued
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import WholeLog, open_log
from services.tally.names import absent_side

STOP_S: Final = 10
ASK_TIMEOUT_S: Final = 1.5


class SideStore(NamedTuple):
    """One side's log, tallies, and what else is kept of it."""

    side: SideSettings
    log: WholeLog
    store: RedisTallyStore
    generations: RedisGenerations
    glance: RedisGlance
    requeued: RedisRequeued

    def audited(self) -> Audited:
        """Return this as what an audit takes."""
        return Audited(self.side, self.log, self.store)

    def rebuildable(self) -> Rebuildable:
        """Return this as what a rebuild takes."""
        return Rebuildable(self.side, self.log, self.store, self.generations)


@contextmanager
def server_url(settings: Settings, *, reading: bool = False) -> Iterator[str]:
    """Yield the address of the server; without one in the settings, the embedded one serves as long as this lasts.

    Who only reads makes no data folder: UsageError if there is none.
    """
    if settings.redis_url:
        yield settings.redis_url
    elif reading and not settings.data_dir.exists():
        raise UsageError(
            f"there is no log and no archive in {settings.data_dir}: set FIELDTALLY_DATA_DIR to the folder that has "
            "them, or FIELDTALLY_REDIS_URL to the server; `fieldtally import` or `up` begin a log there"
        )
    else:
        with embedded_server(settings.data_dir, announce=note) as url:
            try:
                yield url
            except UnreachableError as error:  # it speaks of an address that nobody has set
                raise ended(settings.data_dir) or error from error


def notes_of_trims(settings: Settings, sides: Iterable[Side]) -> dict[Side, Trimmed | None] | None:
    """Return what the server has noted of each side's trims; None if no server runs here, or the one given is away.

    None is started for it, and none waited for longer than a moment.
    """

    async def ask(url: str) -> dict[Side, Trimmed | None]:
        client = connect(url, timeout_s=ASK_TIMEOUT_S)
        try:
            return {side: await RedisLog(client, url, PartitionKeys(settings.prefix, side)).trimmed() for side in sides}
        finally:
            await client.aclose()

    with nullcontext(settings.redis_url) if settings.redis_url else running_server(settings.data_dir) as url:
        try:
            return run_loop(ask(url)) if url else None
        except FieldtallyError:
            return None


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


class Program:
    """One of our commands as a process of its own, which can be started again until it is told to end."""

    def __init__(self, command: str, url: str, changed: Mapping[str, str]) -> None:
        self._command = command
        self._environment = os.environ | {
            f"{ENV_PREFIX}{name}": text for name, text in ({"REDIS_URL": url} | dict(changed)).items()
        }
        self._lock = threading.Lock()
        self._ended = False
        self._process = self._start()

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return self._process.wait()

    def start_again(self) -> None:
        """Start it again once it has ended, unless it was told to."""
        with self._lock:
            if not self._ended:
                self._process = self._start()

    def end(self) -> None:
        """Have it end, and wait for that."""
        with self._lock:
            self._ended = True
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            note(f"`{self._command}` did not end when asked; ending it")
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        # Held back meanwhile: a signal that came now would be lost, or leave a process that nobody ends.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            return subprocess.Popen(  # noqa: S603  # the program is this very Python, and no shell reads the words
                [sys.executable, "-m", "services.cli", self._command],
                env=self._environment,
                text=True,
                preexec_fn=partial(_begin, before),  # noqa: PLW1509  # it only asks the kernel, whatever threads there are
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(mask: Iterable[int]) -> None:
    end_with_parent()
    for number in ENDING:
        if callable(signal.getsignal(number)):  # of ours, which is not there any more
            signal.signal(number, signal.SIG_DFL)
    # Ctrl-C in the terminal is for who started us, and ends us: it is ignored until we can handle it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def program_beside(command: str, url: str, **changed: str) -> Iterator[Program]:
    """Run one of our commands as a process of its own for as long as this lasts, with some settings changed."""
    program = Program(command, url, changed)
    try:
        yield program
    finally:
        program.end()


@asynccontextmanager
async def side_stores(settings: Settings, *, reading: bool = False) -> AsyncIterator[list[SideStore]]:
    """Yield the log and tallies of every side; `reading` as `server_url` takes it."""
    with server_url(settings, reading=reading) as url:
        client = connect(url)
        try:
            await check_server(client, url)
            keys = [PartitionKeys(settings.prefix, side.side) for side in settings.sides]
            yield [
                SideStore(
                    side,
                    open_log(client, url, key, settings.archive_dir),
                    RedisTallyStore(client, url, key),
                    RedisGenerations(client, url, key),
                    RedisGlance(client, url, key),
                    RedisRequeued(client, url, key),
                )
                for side, key in zip(settings.sides, keys, strict=True)
            ]
        finally:
            await client.aclose()


async def log_extents(settings: Settings, as_of: AsOf = NOT_CUT) -> dict[Side, LogExtent]:
    """Return how far the log of every side reaches, and say of which `as_of` lies before its beginning.

    DamagedLogError if a log no longer reaches its live tallies, or an archive is not that of its log.
    """
    async with side_stores(settings) as stores:
        extents = {store.side.side: await _extent(store) for store in stores}
        await note_early(stores, as_of)
        return extents


def require_entries(settings: Settings, extents: Mapping[Side, LogExtent], undone: str) -> None:
    """Raise UsageError if no side has an entry: whoever asks has most likely the wrong folder or server."""
    if not any(extent.entries for extent in extents.values()):
        raise UsageError(f"there is no log or archive here, so nothing was {undone}: {_nowhere(settings, extents)}")


def note_absent(settings: Settings, extents: Mapping[Side, LogExtent]) -> None:
    """Say of which sides nothing is here: their zeros may be missing figures."""
    absent = [side for side, extent in extents.items() if not extent.entries]
    if absent:
        note(absent_side(absent) if len(absent) < len(extents) else _nowhere(settings, extents))


def _nowhere(settings: Settings, sides: Iterable[Side]) -> str:
    where = hide_password(settings.redis_url) if settings.redis_url else f"the embedded server in {settings.data_dir}"
    return (
        f"no side ({', '.join(sides)}) has an entry on {where} under the prefix {settings.prefix!r}, or in "
        f"{settings.archive_dir}; set FIELDTALLY_REDIS_URL or FIELDTALLY_DATA_DIR to where they are"
    )


async def require_own_archives(stores: Iterable[SideStore]) -> None:
    """Raise DamagedLogError where an archive is ahead of its log: what is appended there would make one of two logs."""
    for store in stores:
        foreign = ""
        with suppress(DamagedLogError):  # whoever appends needs no archive, and learns by it what the log takes
            foreign = (await store.log.extent()).foreign
        if foreign:
            raise DamagedLogError(f"side {store.side.side}: {foreign}")


async def note_early(stores: Iterable[SideStore], as_of: AsOf) -> None:
    """Say of which sides nothing had been recorded by then: what is empty for that must not look like a finding."""
    for store in stores:
        stop = as_of.get(store.side.side)
        if stop and (first := await store.log.read_after(START, 1)) and order(first[0].position) > order(stop):
            begins, zone = first[0].position, store.side.zone
            at = ", ".join(filter(None, (begins, time_of(order(begins)[0], zone))))
            note(f"side {store.side.side}: nothing had been recorded by {readable(stop, zone)}; its log begins at {at}")


async def _extent(store: SideStore) -> LogExtent:
    try:
        extent = (await load_fitting(store.side, store.log, store.store)).extent
    except UnsoundTalliesError:  # the log may be whole all the same, and a replay needs nothing else
        extent = await store.log.extent()
    require_one_log(store.side.side, extent)
    return extent
