"""Derived state on Redis, changed by compare-and-set on the checkpoint: the whole of the safety argument (DESIGN 5).

No consumer group, no pending list, no script on the server. A turn takes two round trips on a connection of its own:
the first puts WATCH on checkpoint and live generation and reads all that the fold needs, the second is MULTI … EXEC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec
from msgspec.structs import asdict
from redis.exceptions import RedisError

from schemas.screen import AuditShown
from schemas.tallies import Checkpoint, Counters, DeviceNumbers, Operation, Parked
from schemas.vocabulary import START, Position, order
from services.runtime.errors import FieldtallyError, UnsoundTalliesError
from services.store.connection import Client, in_words, translated
from services.store.contract import Stored, StoredAt
from services.store.exchange import Command, Exchange
from services.store.index_entry import IndexEntry, pack_amendment, pack_version, unpack
from services.store.keys import PartitionKeys
from services.tally.cells import cell_text, parse_cell
from services.tally.fold import Changes, Key

FIRST_GENERATION: Final = "g1"
REBUILD: Final = "`fieldtally rebuild --swap` makes them anew from the log"
CHANGES_KEPT: Final = 2_000
"""Entries of the change feed that are kept, about; who is further behind takes a new snapshot."""

_COUNTER_NAMES: Final = tuple(asdict(Counters()))
_FIELDS: Final = ("position", "zone", "entries", "fold_version", *_COUNTER_NAMES)
_UNSOUND: Final = "unsound"
"""Field of the checkpoint that says what went wrong in the middle of a transaction; nobody goes on from there."""

_json: Final = msgspec.json.Encoder()
_device: Final = msgspec.json.Decoder(DeviceNumbers)
_operation: Final = msgspec.json.Decoder(Operation)
_parked: Final = msgspec.json.Decoder(Parked)


class RedisTallyStore:
    """One partition's derived state; see `contract.TallyStore`.

    With `beside`, of the generation of that name instead of the live one: then neither the change feed nor the name of
    the live generation is written, and turns are refused once it has become the live one.
    """

    def __init__(self, client: Client, url: str, keys: PartitionKeys, *, beside: str | None = None) -> None:
        self._client = client
        self._url = url
        self._keys = keys
        self._beside = beside
        self._turn_connection = Exchange(client, url)
        self._opened: StoredAt | None = None
        self._live_missing = False
        self._feed_ahead = False

    async def load(self) -> Stored:
        """Read the generation, all of it in one transaction."""
        with translated(self._url):
            while True:
                live: Any = await self._client.get(self._keys.live)
                generation = self._beside or (live.decode() if live else FIRST_GENERATION)
                keys = self._keys.generation(generation)
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.get(self._keys.live)
                    pipe.hmget(keys.checkpoint, (*_FIELDS, _UNSOUND))
                    pipe.hgetall(keys.tallies)
                    pipe.hgetall(keys.devices)
                    pipe.hgetall(keys.operations)
                    answers: list[Any] = await pipe.execute(raise_on_error=False)
                for answer in answers:
                    if isinstance(answer, RedisError):
                        raise self._unreadable(generation, answer)
                live_now, checkpoint, tallies, devices, operations = answers
                if self._beside or live_now == live:
                    break
        *checkpoint, unsound = checkpoint
        if unsound is not None:
            raise self._half_written(generation, unsound.decode(errors="replace"))
        if checkpoint[0] is None and (tallies or devices or operations):  # they are written together, or not at all
            raise UnsoundTalliesError(
                f"the tallies of side {self._keys.side} ({generation}) have lost their checkpoint: nobody knows up to "
                f"where they count; {REBUILD}"
            )
        with self._sound(generation):
            return Stored(
                generation=generation,
                checkpoint=_read_checkpoint(checkpoint),
                tallies=dict(zip(map(parse_cell, map(bytes.decode, tallies)), map(int, tallies.values()), strict=True)),
                devices={device.decode(): _device.decode(numbers) for device, numbers in devices.items()},
                operations={name.decode(): _operation.decode(plan) for name, plan in operations.items()},
            )

    async def open_turn(self, held: StoredAt, first: Position, keys: Sequence[Key]) -> list[IndexEntry | None] | None:
        """Watch, and read what the fold needs, in one round trip."""
        self._opened = None  # a turn that was opened before and not recorded is over, whatever comes of this one
        generation = self._keys.generation(held.generation)
        commands: list[Command] = [
            ("UNWATCH",),  # what a turn that was opened and not recorded left behind
            ("WATCH", generation.checkpoint, self._keys.live),
            ("GET", self._keys.live),
            ("HMGET", generation.checkpoint, "position", "entries", "fold_version", _UNSOUND),
            ("XRANGE", self._keys.log, f"({held.checkpoint.position}", f"({first}", "COUNT", "1"),
        ]
        if keys:
            commands.append(("HMGET", generation.index, *keys))
        if self._beside is None:
            commands.append(("XREVRANGE", self._keys.changes, "+", "-", "COUNT", "1"))
        _, _, live, checkpoint, skipped, *more = await self._exchange(commands)
        position, entries, fold_version, unsound = checkpoint
        live_name = (live or FIRST_GENERATION.encode()).decode()
        if live_name == self._beside:
            return None
        stored_at = (
            self._beside or live_name,
            (position or START.encode()).decode(),
            int(entries or 0),
        )
        # Entries and generation too: after a flush and a refill the same position could be another log's.
        if stored_at != (held.generation, held.checkpoint.position, held.checkpoint.entries):
            return None
        if fold_version is not None and int(fold_version) != held.checkpoint.fold_version:
            return None
        if skipped or unsound is not None or order(first) <= order(held.checkpoint.position):
            return None
        self._opened = held
        self._live_missing = live is None and self._beside is None
        newest_change: Any = more[-1] if self._beside is None else []
        self._feed_ahead = bool(newest_change) and order(newest_change[0][0].decode()) >= order(first)
        return [None if packed is None else unpack(packed) for packed in more[0]] if keys else []

    async def record(self, changes: Changes) -> bool:
        """Record a turn with MULTI … EXEC."""
        held, self._opened = self._opened, None
        if held is None:
            raise RuntimeError("record without open_turn")
        commands: list[Command] = [("MULTI",), *self._writes(held, changes), ("EXEC",)]
        outcome = (await self._exchange(commands, exec_last=True))[-1]
        if outcome is None:
            return False
        for answer, command in zip(outcome, commands[1:-1], strict=True):
            if isinstance(answer, RedisError):  # Redis does not roll back: some of it is written, some is not
                await self.close()
                failed = f"{command[0]} on {command[1]} failed ({str(answer)[:80]})"
                with suppress(RedisError, OSError):
                    # Else whoever is started next would find a checkpoint in order, and go on from what is not.
                    await self._client.hset(self._keys.generation(held.generation).checkpoint, _UNSOUND, failed)
                raise self._half_written(held.generation, failed)
        return True

    async def parked(self) -> dict[Position, Parked]:
        """Return what was set aside in the generation, in the order of the log."""
        with translated(self._url):
            live: Any = await self._client.get(self._keys.live)
            generation_name = self._beside or (live.decode() if live else FIRST_GENERATION)
            generation = self._keys.generation(generation_name)
            rows: Any = await self._client.hgetall(generation.parked)
        with self._sound(generation_name):
            found = {Position(position.decode()): _parked.decode(row) for position, row in rows.items()}
            return dict(sorted(found.items(), key=lambda item: order(item[0])))

    async def note_audit(self, audit: AuditShown) -> None:
        """Keep that live and rebuilt tallies were found equal: the screens show when that was last."""
        with translated(self._url):
            await self._client.set(self._keys.audit, _json.encode(audit))

    async def close(self) -> None:
        """Give up the connection that turns are made on, and with it whatever it watched."""
        await self._turn_connection.close()

    def _unreadable(self, generation: str, error: RedisError) -> FieldtallyError:
        """Say what an error of reading a generation means: a key that is no hash is damage like any other."""
        if not str(error).startswith("WRONGTYPE"):
            return in_words(error, self._url)
        return UnsoundTalliesError(
            f"a key of the tallies of side {self._keys.side} ({generation}) is no hash, as it was written; {REBUILD}"
        )

    def _half_written(self, generation: str, failed: str) -> UnsoundTalliesError:
        return UnsoundTalliesError(
            f"the tallies of side {self._keys.side} ({generation}) are no longer sound: {failed} in the middle of a "
            f"transaction; {REBUILD}"
        )

    @contextmanager
    def _sound(self, generation: str) -> Iterator[None]:
        """Nobody but the projector writes derived state; what it cannot have written is damage."""
        try:
            yield
        except (ValueError, msgspec.MsgspecError) as error:
            raise UnsoundTalliesError(
                f"the tallies of side {self._keys.side} ({generation}) hold what Fieldtally never wrote; {REBUILD}"
            ) from error

    def _writes(self, held: StoredAt, changes: Changes) -> Iterable[Command]:
        keys = self._keys.generation(held.generation)
        checkpoint = changes.checkpoint
        if self._live_missing:
            yield ("SET", self._keys.live, held.generation)
        if self._feed_ahead:  # left behind by a log that is gone; its readers are told to take a snapshot
            yield ("DEL", self._keys.changes)
        counts = {cell_text(cell): count for cell, count in changes.cells.items()}
        if present := [part for cell, count in counts.items() if count for part in (cell, count)]:
            yield ("HSET", keys.tallies, *present)
        if gone := [cell for cell, count in counts.items() if not count]:
            yield ("HDEL", keys.tallies, *gone)
        if changes.index:
            packed: list[bytes] = []
            for key, version in changes.index.items():
                packed.append(key)
                packed.append(pack_version(version))
            yield ("HSET", keys.index, *packed)
        for ident, amendment in changes.amendments.items():
            yield ("HSETNX", keys.amendments, ident, pack_amendment(amendment))
        if changes.devices:
            rows = [part for name, numbers in changes.devices.items() for part in (name, _json.encode(numbers))]
            yield ("HSET", keys.devices, *rows)
        if changes.operations:
            rows = [part for name, operation in changes.operations.items() for part in (name, _json.encode(operation))]
            yield ("HSET", keys.operations, *rows)
        if changes.parked:
            rows = [part for position, parked in changes.parked.items() for part in (position, _json.encode(parked))]
            yield ("HSET", keys.parked, *rows)
        if self._beside is None:
            yield (
                *("XADD", self._keys.changes, "MAXLEN", "~", CHANGES_KEPT, checkpoint.position),
                *("after", held.checkpoint.position, "generation", held.generation, "cells", _json.encode(counts)),
            )
        values = (checkpoint.position, checkpoint.zone, checkpoint.entries, checkpoint.fold_version)
        counters = asdict(checkpoint.counters).values()
        yield (
            *("HSET", keys.checkpoint),
            *[part for pair in zip(_FIELDS, (*values, *counters), strict=True) for part in pair],
        )

    async def _exchange(self, commands: list[Command], *, exec_last: bool = False) -> list[Any]:
        """Send commands in one go and return all answers; after any error the connection is given up."""
        answers = await self._turn_connection.send(commands)
        # EXEC's own answer comes last, and says that nothing was applied; before it, an error is only the reason.
        if isinstance(answers[-1], RedisError) or (
            not exec_last and any(isinstance(one, RedisError) for one in answers)
        ):
            await self.close()
            pairs = zip(commands, answers, strict=True)
            command, refused = next((sent, answer) for sent, answer in pairs if isinstance(answer, RedisError))
            of = self._keys.generation_of(command[1]) if len(command) > 1 else ""
            raise (self._unreadable(of, refused) if of else in_words(refused, self._url)) from refused
        return answers


def _read_checkpoint(values: Sequence[bytes | None]) -> Checkpoint | None:
    if values[0] is None:
        return None
    position, zone, *numbers = values
    order((position or b"").decode())  # raises ValueError on what is no position
    entries, fold_version, *counters = (int(number or 0) for number in numbers)
    return Checkpoint(
        position=Position((position or b"").decode()),
        entries=entries,
        fold_version=fold_version,
        counters=Counters(*counters),
        zone=(zone or b"").decode(),
    )
