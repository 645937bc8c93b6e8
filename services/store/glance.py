"""What others than the projector read of a side's derived state: little, often, and without ever writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from msgspec import Struct

from schemas.screen import AuditShown
from schemas.tallies import DeviceNumbers, Operation
from schemas.vocabulary import START, Position
from services.runtime.errors import UnsoundTalliesError
from services.store.connection import Client, translated
from services.store.index_entry import IndexEntry, unpack, unpack_amendment
from services.store.keys import PartitionKeys
from services.store.tally_store import FIRST_GENERATION
from services.tally.fold import Amendment, Key

_device: Final = msgspec.json.Decoder(DeviceNumbers)
_operation: Final = msgspec.json.Decoder(Operation)
_audit: Final = msgspec.json.Decoder(AuditShown)


class Glance(Struct, frozen=True):
    """A side at one instant: what its tallies include, its operations, and what of its log they do not include yet.

    `next_entry` is the oldest entry that is not counted yet, `last` the newest of the log.
    """

    generation: str
    position: Position
    entries: int
    parked: int
    operations: dict[str, Operation]
    appended: int
    next_entry: Position | None
    last: Position = START

    @property
    def lag(self) -> int:
        """Entries of the log that are not counted yet."""
        return max(0, self.appended - self.entries)


class RedisGlance:
    """Reads one side."""

    def __init__(self, client: Client, url: str, keys: PartitionKeys) -> None:
        self._client = client
        self._url = url
        self._keys = keys

    async def take(self) -> Glance:
        """Look at the side."""
        with translated(self._url):
            while True:
                live: Any = await self._client.get(self._keys.live)
                generation = live.decode() if live else FIRST_GENERATION
                keys = self._keys.generation(generation)
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.get(self._keys.live)
                    pipe.hmget(keys.checkpoint, _CHECKPOINT)
                    pipe.hgetall(keys.operations)
                    pipe.execute_command("EXISTS", self._keys.log)
                    live_now, checkpoint, operations, exists = await pipe.execute()
                if live_now == live:
                    break
            position = Position((checkpoint[0] or START.encode()).decode())
            appended, next_entry, last = 0, None, START
            if exists:
                async with self._client.pipeline(transaction=False) as pipe:
                    pipe.xinfo_stream(self._keys.log)
                    pipe.xrange(self._keys.log, f"({position}", "+", count=1)
                    info, following = await pipe.execute()
                appended = int(info["entries-added"])
                last = Position(info["last-generated-id"].decode())
                next_entry = Position(following[0][0].decode()) if following else None
        with self._sound():
            entries, *parked = (int(number or 0) for number in checkpoint[1:])
        with self._sound():
            plans = {name.decode(): _operation.decode(plan) for name, plan in operations.items()}
        return Glance(
            generation=generation,
            position=position,
            entries=entries,
            parked=sum(parked),
            operations=plans,
            appended=appended,
            next_entry=next_entry,
            last=last,
        )

    async def index(self, generation: str, keys: Sequence[Key]) -> dict[Key, IndexEntry]:
        """Return what the index has of these keys."""
        if not keys:
            return {}
        with translated(self._url):
            rows: Any = await self._client.hmget(self._keys.generation(generation).index, list(keys))
        with self._sound():
            return {key: unpack(row) for key, row in zip(keys, rows, strict=True) if row}

    async def amendments(self, generation: str, idents: Sequence[Key] | None = None) -> dict[Key, Amendment]:
        """Return what is known of the amendments of these ids, or of all."""
        if idents is not None and not idents:
            return {}
        key = self._keys.generation(generation).amendments
        with translated(self._url):
            rows: Any
            if idents is None:
                rows = await self._client.hgetall(key)
            else:
                rows = dict(zip(idents, await self._client.hmget(key, list(idents)), strict=True))
        with self._sound():
            return {ident: unpack_amendment(row) for ident, row in rows.items() if row}

    async def audit(self) -> AuditShown | None:
        """Return the last audit that found live and rebuilt tallies equal."""
        with translated(self._url):
            row: Any = await self._client.get(self._keys.audit)
        with self._sound():
            return None if row is None else _audit.decode(row)

    async def device(self, generation: str, name: str) -> DeviceNumbers | None:
        """Return the numbers of one device, named `unit/device`."""
        with translated(self._url):
            row: Any = await self._client.hget(self._keys.generation(generation).devices, name)
        with self._sound():
            return None if row is None else _device.decode(row)

    async def devices(self, generation: str) -> dict[str, DeviceNumbers]:
        """Return the numbers of all devices."""
        with translated(self._url):
            rows: Any = await self._client.hgetall(self._keys.generation(generation).devices)
        with self._sound():
            return {name.decode(): _device.decode(row) for name, row in rows.items()}

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Nobody but the projector writes derived state; what it cannot have written is damage."""
        try:
            yield
        except (ValueError, msgspec.MsgspecError) as error:
            raise UnsoundTalliesError(
                f"the derived state of side {self._keys.side} holds what Fieldtally never wrote: `fieldtally doctor`"
            ) from error


_CHECKPOINT: Final = ("position", "entries", "conflict", "malformed", "unknown_type", "wrong_side")
