"""Reads the change feed of every side into the room, through FastStream; and looks at every side now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from structlog.typing import FilteringBoundLogger

from services.control_room.room import RoomSide, read_change
from services.runtime.ending import end
from services.runtime.errors import FaultError, FieldtallyError, UnreachableError
from services.store.connection import in_words
from services.store.contract import Entry
from services.store.keys import PartitionKeys
from services.store.subscription import Reader, reading_broker, reading_tasks, subscribe

BATCH_MAX: Final = 500
LOOK_S: Final = 1.0
RETRY_S: Final = 0.5
"""Below the time between two looks: else they would find the feed silent after a server came back, and reset all."""


class Feed:
    """Keeps the sides of the room current until it is stopped."""

    def __init__(
        self,
        url: str,
        prefix: str,
        sides: Sequence[RoomSide],
        logger: FilteringBoundLogger,
    ) -> None:
        self._url = url
        self._sides = sides
        self._logger = logger
        # Without a word: the looks say that the server is away.
        self._broker = reading_broker(url, lambda _: RETRY_S, lambda *_: None)
        self._readers = [
            subscribe(self._broker, PartitionKeys(prefix, side.side.side).changes, BATCH_MAX, self._deliver_to(number))
            for number, side in enumerate(sides)
        ]
        self._looking: asyncio.Task[None] | None = None
        self._away = False

    async def start(self) -> None:
        """Load every side and begin to follow; errors of the start go to the caller."""
        for side, reader in zip(self._sides, self._readers, strict=True):
            await side.load()
            reader.last_id = side.position
        try:
            await self._broker.start()
        except TimeoutError as error:  # FastStream waits for the first answer to a reader for three seconds
            raise in_words(error, self._url) from error
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Follow no more."""
        if self._looking:
            await end(self._looking)
        await self._broker.stop()
        await end(*reading_tasks(self._broker))

    def _deliver_to(self, number: int) -> Callable[[list[Entry]], Awaitable[None]]:
        async def deliver(entries: list[Entry]) -> None:
            await self._take(self._sides[number], self._readers[number], entries)

        return deliver

    async def _take(self, side: RoomSide, reader: Reader, entries: Sequence[Entry]) -> None:
        changes = [change for entry in entries if (change := read_change(entry))]
        followed = await self._try(side, side.follow(changes))
        if followed is None:
            await asyncio.sleep(RETRY_S)
        if not followed:
            reader.last_id = side.position

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for side, reader in zip(self._sides, self._readers, strict=True):
                if await self._try(side, side.look()):
                    reader.last_id = side.position
            failure = next((side.failure for side in self._sides if side.failure), None)
            if failure and not self._away:
                event = "server_away" if isinstance(failure, UnreachableError) else "side_not_shown"
                self._logger.warning(event, reason=str(failure))
            elif self._away and not failure:
                self._logger.info("server_back")
            self._away = failure is not None

    @staticmethod
    async def _try(side: RoomSide, step: Awaitable[bool]) -> bool | None:
        """Return what a step of a side does; None, and its failure is known, if something keeps it from that."""
        try:
            return await step
        except FieldtallyError as error:
            side.failure = error
        except Exception as fault:  # noqa: BLE001  # FastStream would swallow it and read on, and nobody would know
            side.failure = FaultError(
                f"a fault in Fieldtally itself ({type(fault).__name__}) keeps {side.side.side} from the screens"
            )
        return None
