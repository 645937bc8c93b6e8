"""The projector as a FastStream application: one batch subscriber per side, plain XREAD from the checkpoint.

No consumer group and no pending list: the checkpoint, written in the same transaction as the tallies, is the only
record of what was read. `faststream run services.projector.app:app` runs it, configured by the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Final

from faststream import FastStream
from structlog.typing import FilteringBoundLogger

from schemas.vocabulary import Position
from services.projector.follower import Follower, growing_pause_s, reached
from services.projector.partition import Partition
from services.runtime.collector import calm_collector
from services.runtime.embedded import embedded_server
from services.runtime.ending import end
from services.runtime.errors import FieldtallyError
from services.runtime.logging import set_up_logging
from services.runtime.settings import Settings, read_settings
from services.runtime.standard import put_in_order
from services.store.connection import check_server, connect, in_words
from services.store.contract import Entry
from services.store.keys import PartitionKeys
from services.store.subscription import reading_broker, reading_tasks, subscribe
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import open_log

BATCH_MAX: Final = 4_000
CHECK_S: Final = 1.0


class Projector:
    """The projection of every side in one process, and what it ended with."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        logger: FilteringBoundLogger,
        *,
        until_caught_up: bool = False,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.damage: FieldtallyError | None = None
        self.interrupted = False
        self._has_started = False
        self.entries_applied = 0
        self.targets: dict[str, Position] = {}
        self._url = url
        self._logger = logger
        self._until_caught_up = until_caught_up
        self._on_progress = on_progress
        self._client = connect(url)
        self.partitions = [
            Partition(
                side,
                open_log(self._client, url, PartitionKeys(settings.prefix, side.side), settings.archive_dir),
                RedisTallyStore(self._client, url, PartitionKeys(settings.prefix, side.side)),
            )
            for side in settings.sides
        ]
        self._broker = reading_broker(url, growing_pause_s, self._say_waiting)
        self._followers = [self._subscribe(partition, settings.prefix) for partition in self.partitions]
        # On shutdown, before the broker waits for its handlers: one that pauses must not pause to the end.
        self.app = FastStream(
            self._broker,
            logger=None,
            lifespan=self._lifespan,
            after_startup=[self._say_started],
            on_shutdown=[self._stop_pauses],
        )

    async def run(self) -> None:
        """Follow the logs until stopped, or caught up if so asked; errors of the start, and damage, are raised."""
        try:
            await self.app.run()
        except TimeoutError as error:  # FastStream waits for the first answer to a reader for three seconds
            raise in_words(error, self._url) from error
        finally:
            await end(*reading_tasks(self._broker))
        if self.damage:
            raise self.damage

    @property
    def caught_up(self) -> bool:
        """Whether every side's tallies reach what was the end of its log at the start."""
        return all(reached(partition, self.targets[partition.side.side]) for partition in self.partitions)

    def _subscribe(self, partition: Partition, prefix: str) -> Follower:
        async def deliver(entries: list[Entry]) -> None:
            await follower.deliver(entries)

        reader = subscribe(self._broker, PartitionKeys(prefix, partition.side.side).log, BATCH_MAX, deliver)
        follower = Follower(partition, reader, self._logger, on_progress=self._progressed, on_damage=self._stop_damaged)
        return follower

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        try:
            calm_collector()
            await check_server(self._client, self._url)
            for follower in self._followers:
                await follower.start()
            for partition in self.partitions:
                self.targets[partition.side.side] = (await partition.log.extent()).last
            if self._until_caught_up and self.caught_up:
                self._say_started()  # FastStream may not, for what ends before its readers begin
                self.app.exit()
            calm_collector()
            # After FastStream's own, which cannot tell a person's Ctrl-C from a process manager's SIGTERM.
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
            watch = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                await end(watch)
        finally:
            for partition in self.partitions:
                await partition.store.close()
            await self._client.aclose()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            for follower in self._followers:
                await follower.check()

    def _interrupt(self) -> None:
        self.interrupted = True
        self.app.exit()

    def _progressed(self, entries: int) -> None:
        self.entries_applied += entries
        self._on_progress(entries)
        if self._until_caught_up and self.caught_up:
            self.app.exit()

    def _stop_damaged(self, damage: FieldtallyError) -> None:
        self.damage = self.damage or damage
        self.app.exit()

    def _stop_pauses(self) -> None:
        for follower in self._followers:
            follower.stopping.set()

    def _say_started(self) -> None:
        if self._has_started:
            return
        self._has_started = True
        self._logger.info("projector_started", sides=[partition.side.side for partition in self.partitions])

    def _say_waiting(self, reason: str, wait_s: float) -> None:
        self._logger.warning("waiting", reason=reason, wait_s=round(wait_s, 1))


def __getattr__(name: str) -> FastStream:
    """Build `app` when `faststream run` asks for it, not when something merely imports this module."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _app_from_environment()


def _app_from_environment() -> FastStream:
    put_in_order()
    stack = ExitStack()
    try:
        settings = read_settings(os.environ)
        url = settings.redis_url or stack.enter_context(embedded_server(settings.data_dir))
    except FieldtallyError as error:
        sys.exit(_last_words(error))
    projector = Projector(settings, url, set_up_logging(settings.log_format, settings.log_level))
    run = projector.app.run

    # FastStream would end with a traceback on what is raised, and with status 0 or 1 whatever it was.
    async def run_and_tell(*args: Any, **options: Any) -> None:
        try:
            await run(*args, **options)
            if projector.damage:
                raise projector.damage
        except FieldtallyError as error:
            sys.exit(_last_words(error))
        finally:
            stack.close()

    projector.app.run = run_and_tell  # type: ignore[method-assign]
    return projector.app


def _last_words(error: FieldtallyError) -> int:
    print(f"fieldtally: {error}", file=sys.stderr)  # noqa: T201  # the one line a user is to read
    return error.exit_code
