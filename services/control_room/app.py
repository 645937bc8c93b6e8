"""The control room's composition root: settings to an application, and a uvicorn that serves it until told to stop."""

from __future__ import annotations

import asyncio
from typing import Final

from structlog.typing import FilteringBoundLogger

from services.control_room.feed import Feed
from services.control_room.past import Past, Rebuild
from services.control_room.room import RoomSide
from services.control_room.routes import ControlRoom
from services.control_room.sessions import Sessions
from services.control_room.streams import Streams
from services.runtime.clock import monotonic, now
from services.runtime.collector import calm_collector
from services.runtime.ending import end
from services.runtime.serving import Application
from services.runtime.settings import Settings, SideSettings, hide_password
from services.store.connection import check_server, connect
from services.store.glance import RedisGlance
from services.store.keys import PartitionKeys
from services.store.principals import RedisPrincipals
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import open_log

SHUTDOWN_S: Final = 5


class ControlRoomApp(Application):
    """The ASGI application with what lives as long as it does; `rebuild` rebuilds sides for a look at the past."""

    def __init__(self, settings: Settings, url: str, logger: FilteringBoundLogger, rebuild: Rebuild) -> None:
        super().__init__()
        self._url = url
        self._logger = logger
        self._client = connect(url)
        sides = [self._side(side, settings) for side in settings.sides]
        names = [side.side for side in settings.sides]
        self.streams = Streams(names)
        self.room = ControlRoom(
            sides,
            self.streams,
            Sessions(RedisPrincipals(self._client, url, settings.prefix), names, monotonic, now),
            Past(rebuild, {side.side.side: side for side in sides}),
            logger,
            now,
            monotonic,
        )
        self._feed = Feed(url, settings.prefix, sides, logger)
        self._sides = sides
        self.http = self.room.application()
        self._beating: asyncio.Task[None] | None = None

    def _side(self, side: SideSettings, settings: Settings) -> RoomSide:
        keys = PartitionKeys(settings.prefix, side.side)
        return RoomSide(
            side,
            open_log(self._client, self._url, keys, settings.archive_dir),
            RedisTallyStore(self._client, self._url, keys),
            RedisGlance(self._client, self._url, keys),
            now,
        )

    def ending(self) -> None:
        """End the streams, which would go on for ever: serving ends."""
        self.streams.close_all()

    async def start(self) -> None:
        """Connect, and begin to look."""
        await check_server(self._client, self._url)
        await self._feed.start()
        for side in self._sides:
            self.streams.start_at(side.side.side, side.position)
        calm_collector()
        self._beating = asyncio.create_task(self.room.beat())
        self._logger.info("control_room_started", sides=list(self.room.sides), server=hide_password(self._url))

    async def stop(self) -> None:
        """Look no more, and give up the connections."""
        if self._beating:
            await end(self._beating)
        await self._feed.stop()
        await self._client.aclose()
        if self._beating:
            self._logger.info("control_room_stopped")
