"""What became of parked entries that were put back: an entry of the log and the note of it, written in one step."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import replace
from redis.exceptions import WatchError

from schemas.tallies import Requeued
from schemas.vocabulary import START, Position, Side
from services.runtime.errors import DamagedLogError
from services.store.connection import Client, translated
from services.store.contract import Log
from services.store.keys import PartitionKeys
from services.tally.fold import BY_FIELD

CHUNK: Final = 1_000

_json: Final = msgspec.json.Encoder()
_requeued: Final = msgspec.json.Decoder(Requeued)


class RedisRequeued:
    """The entries that were appended to one side's log again, by the side and the position where they are parked."""

    def __init__(self, client: Client, url: str, keys: PartitionKeys) -> None:
        self._client = client
        self._url = url
        self._keys = keys

    async def notes(self) -> dict[tuple[Side, Position], Requeued]:
        """Return every note."""
        with translated(self._url):
            rows: Any = await self._client.hgetall(self._keys.requeued)
        found = {}
        for name, row in rows.items():
            side, _, position = name.decode(errors="replace").partition("/")
            found[Side(side), Position(position)] = self._read(row)
        return found

    async def append(self, event: bytes, parked_at: tuple[Side, Position], note: Requeued) -> tuple[Requeued, bool]:
        """Append a canonical event with its note, unless there is a note of that entry already.

        Returns the note that stands now, and whether it is this one.

        Killed at any moment, both are there or neither; only the new position may be missing in the note.
        """
        name = _name(*parked_at)
        key = self._keys.requeued
        with translated(self._url):
            while True:
                async with self._client.pipeline(transaction=True) as pipe:
                    await pipe.watch(key)
                    row: Any = await pipe.hget(key, name)
                    if row:
                        return self._read(row), False
                    newest: Any = await pipe.xrevrange(self._keys.log, count=1)
                    note = replace(note, after=Position(newest[0][0].decode()) if newest else START)
                    pipe.multi()  # type: ignore[no-untyped-call]
                    # No MAXLEN, ever.
                    pipe.execute_command("XADD", self._keys.log, "*", "event", event, "by", note.by)
                    pipe.hset(key, name, _json.encode(note))
                    try:
                        position, _ = await pipe.execute()
                    except WatchError:
                        continue
                return await self._place(parked_at, replace(note, position=Position(position.decode()))), True

    async def find(self, log: Log, parked_at: tuple[Side, Position], note: Requeued) -> Requeued:
        """Return a note with the position of its entry, looked for in the log if it was never noted."""
        after = note.after
        while not note.position and (entries := await log.read_after(after, CHUNK)):
            for entry in entries:
                if entry.fields.get(BY_FIELD) == note.by.encode():
                    return await self._place(parked_at, replace(note, position=entry.position))
            after = entries[-1].position
        return note

    async def _place(self, parked_at: tuple[Side, Position], note: Requeued) -> Requeued:
        with translated(self._url):
            await self._client.hset(self._keys.requeued, _name(*parked_at), _json.encode(note))
        return note

    def _read(self, row: bytes) -> Requeued:
        try:
            return _requeued.decode(row)
        except msgspec.MsgspecError as error:
            raise DamagedLogError(
                f"{self._keys.requeued} holds what Fieldtally never wrote: look at it with HGETALL"
            ) from error


def _name(side: Side, position: Position) -> str:
    return f"{side}/{position}"
