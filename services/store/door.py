"""A side's log as the gateway writes it: what the index knows of some reports, and an append, in few round trips."""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import RedisError

from schemas.vocabulary import Position
from services.store.connection import Client, in_words
from services.store.contract import Entry
from services.store.exchange import Exchange
from services.store.index_entry import IndexEntry, unpack
from services.store.keys import PartitionKeys
from services.tally.fold import Key


class RedisDoor:
    """One side's door; used by one at a time."""

    def __init__(self, client: Client, url: str, keys: PartitionKeys) -> None:
        self._exchange = Exchange(client, url)
        self._url = url
        self._keys = keys

    async def index(self, generation: str, keys: Sequence[Key]) -> list[IndexEntry | None]:
        """Return what the index holds for these keys."""
        (packed,) = await self._exchange.send([("HMGET", self._keys.generation(generation).index, *keys)])
        if isinstance(packed, RedisError):
            raise in_words(packed, self._url) from packed
        return [None if entry is None else unpack(entry) for entry in packed]

    async def read(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return the entries of the log at these positions, None for each that is not there."""
        if not positions:
            return []
        answers = await self._exchange.send([("XRANGE", self._keys.log, at, at) for at in positions])
        entries: list[Entry | None] = []
        for position, answer in zip(positions, answers, strict=True):
            if isinstance(answer, RedisError):
                raise in_words(answer, self._url) from answer
            fields = answer[0][1] if answer else []
            entries.append(Entry(position, dict(zip(fields[::2], fields[1::2], strict=True))) if answer else None)
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
