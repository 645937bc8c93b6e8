"""A side's log as the gateway writes it: what the index knows of some reports, and an append, in few round trips."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from redis.exceptions import RedisError

from schemas.vocabulary import Position
from services.store.connection import Client, in_words
from services.store.contract import Entry
from services.store.exchange import Exchange
from services.store.index_entry import IndexEntry, unpack, unpack_amendment
from services.store.keys import PartitionKeys
from services.tally.fold import Key


class Known(Struct, frozen=True, gc=False):
    """What a generation knows of some reports: the index, where amendments stand, and the log's length just then."""

    index: dict[Key, IndexEntry]
    amendments: dict[Key, Position]
    length: int


class RedisDoor:
    """One side's door; used by one at a time."""

    def __init__(self, client: Client, url: str, keys: PartitionKeys) -> None:
        self._exchange = Exchange(client, url)
        self._url = url
        self._keys = keys

    async def look(self, generation: str, names: Sequence[Key]) -> Known | None:
        """Return what a generation knows of these keys and ids, and how many entries the log holds.

        None if it is no longer the live one: it may have been removed, and know nothing.
        """
        keys = self._keys.generation(generation)
        answers = await self._exchange.send(
            [
                ("HMGET", keys.index, *names),
                ("HMGET", keys.amendments, *names),
                ("XLEN", self._keys.log),
                ("GET", self._keys.live),
            ],
            first=True,
        )
        for answer in answers:
            if isinstance(answer, RedisError):
                raise in_words(answer, self._url) from answer
        index, amendments, length, live = answers
        if live is not None and live.decode() != generation:
            return None
        return Known(
            index={name: unpack(packed) for name, packed in zip(names, index, strict=True) if packed},
            amendments={
                name: unpack_amendment(one).position for name, one in zip(names, amendments, strict=True) if one
            },
            length=length,
        )

    async def read_after(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` entries of the log after a position."""
        (answer,) = await self._exchange.send([("XRANGE", self._keys.log, f"({position}", "+", "COUNT", str(count))])
        if isinstance(answer, RedisError):
            raise in_words(answer, self._url) from answer
        return [_entry(*one) for one in answer]

    async def read(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return the entries of the log at these positions, None for each that is not there."""
        if not positions:
            return []
        answers = await self._exchange.send([("XRANGE", self._keys.log, at, at) for at in positions])
        entries: list[Entry | None] = []
        for answer in answers:
            if isinstance(answer, RedisError):
                raise in_words(answer, self._url) from answer
            entries.append(_entry(*answer[0]) if answer else None)
        return entries

    async def append(self, events: Sequence[tuple[bytes, str]]) -> list[Position | None]:
        """Append canonical events in order, each with who was authenticated; None for each that was refused.

        No MAXLEN, ever. No MULTI: each entry stands for itself, and what is not confirmed is sent again.

        Raises:
            UnreachableError: nothing was confirmed.

        """
        if not events:
            return []
        key = self._keys.log
        answers = await self._exchange.send([("XADD", key, "*", "event", event, "by", by) for event, by in events])
        if isinstance(answers[0], RedisError) and all(isinstance(answer, RedisError) for answer in answers):
            raise in_words(answers[0], self._url) from answers[0]
        return [None if isinstance(answer, RedisError) else Position(answer.decode()) for answer in answers]

    async def close(self) -> None:
        """Give up the connection."""
        await self._exchange.close()


def _entry(position: bytes, fields: Sequence[bytes]) -> Entry:
    return Entry(Position(position.decode()), dict(zip(fields[::2], fields[1::2], strict=True)))
