"""The log on a Redis stream: append, read after a position, read at positions. Trimmed only of what is archived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from msgspec.structs import asdict
from redis.exceptions import ResponseError, WatchError

from schemas.vocabulary import START, Position, following, order
from services.runtime.errors import FieldtallyError, UnreachableError
from services.store.connection import Client, in_words, translated
from services.store.contract import Entry, LogExtent, Trimmed
from services.store.keys import PartitionKeys
from services.tally.fold import Arrival, arrive

_MAKER: Final = "begin-behind"


class PartlyAppendedError(UnreachableError):
    """Some events of a batch were not appended; `positions` has None for each of these. Send them again."""

    def __init__(self, cause: FieldtallyError, positions: list[Position | None]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.positions = positions


class RedisLog:
    """One partition's log; see `contract.Log`."""

    def __init__(self, client: Client, url: str, keys: PartitionKeys) -> None:
        self._client = client
        self._url = url
        self._key = keys.log
        self._trimmed = keys.trimmed

    async def append(self, events: Sequence[bytes], *, by: str | None = None) -> list[Position]:
        """Append events in order. No MAXLEN, ever: the log is the only copy until it is archived."""
        tail = ("by", by) if by is not None else ()
        with translated(self._url):
            # A pipeline without MULTI: each entry stands for itself, and a batch cut off midway is simply sent again.
            async with self._client.pipeline(transaction=False) as pipe:
                for event in events:
                    pipe.execute_command("XADD", self._key, "*", "event", event, *tail)
                answers = await pipe.execute(raise_on_error=False)
        positions = [None if isinstance(answer, Exception) else Position(answer.decode()) for answer in answers]
        for answer in answers:
            if isinstance(answer, Exception):
                raise PartlyAppendedError(in_words(answer, self._url), positions) from answer
        return [position for position in positions if position]

    async def read_after(self, position: Position, count: int, *, block_ms: int | None = None) -> list[Entry]:
        """Return up to `count` entries after a position; with `block_ms`, wait that long for the first."""
        with translated(self._url):
            answer: Any = await self._client.xread({self._key: position}, count=count, block=block_ms)
        return [Entry(Position(entry_id.decode()), fields) for entry_id, fields in answer[0][1]] if answer else []

    async def read_before(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` entries at and before a position, the newest first."""
        with translated(self._url):
            answer: Any = await self._client.xrevrange(self._key, position, "-", count=count)
        return [Entry(Position(entry_id.decode()), fields) for entry_id, fields in answer]

    async def read_arrivals(self, position: Position, count: int) -> list[Arrival]:
        """Return up to `count` entries after a position, as the fold takes them."""
        return [arrive(entry.position, entry.fields) for entry in await self.read_after(position, count)]

    async def read_at(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return the entries at these positions, None for each that is not there."""
        if not positions:
            return []
        with translated(self._url):
            async with self._client.pipeline(transaction=False) as pipe:
                for position in positions:
                    pipe.xrange(self._key, position, position)
                answers = await pipe.execute()
        return [Entry(Position(answer[0][0].decode()), answer[0][1]) if answer else None for answer in answers]

    async def extent(self) -> LogExtent:
        """Return how far the log reaches."""
        with translated(self._url):
            try:
                info: dict[str, Any] = await self._client.xinfo_stream(self._key)
            except ResponseError as error:
                if "no such key" not in str(error):
                    raise
                return LogExtent(last=START, length=0, appended=0)
        length = int(info["length"])
        last = Position(info["last-generated-id"].decode())
        deleted = Position(info.get("max-deleted-entry-id", START.encode()).decode())
        return LogExtent(last, length, appended=int(info.get("entries-added", length)), newest_deleted=deleted)

    async def trim(self, trimmed: Trimmed) -> None:
        """Take out all entries up to and with a position, and note which archive has them: both or neither."""
        with translated(self._url):
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.hset(self._trimmed, mapping=cast("dict[Any, Any]", asdict(trimmed)))
                pipe.execute_command("XTRIM", self._key, "MINID", "=", following(trimmed.position))
                await pipe.execute()

    async def begin_behind(self, archived: Trimmed) -> int:
        """Be a log of which all up to a position was trimmed, whatever the server had lost; return what it holds still.

        Killed at any moment, it is done once this has been called again.
        """
        with translated(self._url):
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.hset(self._trimmed, mapping=cast("dict[Any, Any]", asdict(archived)))
                # A stream without an entry comes about in no other way.
                pipe.xgroup_create(self._key, _MAKER, mkstream=True)
                pipe.xgroup_destroy(self._key, _MAKER)
                pipe.execute_command("XTRIM", self._key, "MINID", "=", following(archived.position))
                await pipe.execute()
                while True:
                    await pipe.watch(self._key)
                    info: Any = await pipe.xinfo_stream(self._key)
                    last = max(Position(info["last-generated-id"].decode()), archived.position, key=order)
                    length = int(info["length"])
                    pipe.multi()  # type: ignore[no-untyped-call]
                    pipe.execute_command("XSETID", self._key, last, "ENTRIESADDED", archived.entries + length)
                    try:
                        await pipe.execute()
                    except WatchError:  # somebody recorded a report meanwhile
                        continue
                    return length

    async def trimmed(self) -> Trimmed | None:
        """Return how far the log was trimmed, if it ever was."""
        with translated(self._url):
            row: Any = await self._client.hmget(self._trimmed, ["position", "entries", "head"])
        position, entries, head = row
        return Trimmed(Position(position.decode()), int(entries), head.decode()) if position else None

    async def server_info(self) -> dict[str, Any]:
        """Return INFO of the server that holds this log."""
        with translated(self._url):
            info: dict[str, Any] = await self._client.info()
        return info
