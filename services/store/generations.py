"""The generations of one side's derived state: which there are, which is live, and how that changes in one step."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from redis.exceptions import ResponseError, WatchError

from schemas.tallies import Checkpoint
from schemas.vocabulary import START, Position, order
from services.runtime.errors import UsageError
from services.store.connection import Client, translated
from services.store.keys import PartitionKeys
from services.store.tally_store import FIRST_GENERATION, RedisTallyStore

SCANNED: Final = 1_000
"""Keys of the server that one SCAN looks at, about."""


class Generation(Struct, frozen=True):
    """A generation as found. `position` is None, and `entries` 0, where its checkpoint is not there or unreadable."""

    name: str
    position: Position | None
    entries: int


class RedisGenerations:
    """The generations of one side."""

    def __init__(self, client: Client, url: str, keys: PartitionKeys) -> None:
        self._client = client
        self._url = url
        self._keys = keys

    def store(self, name: str) -> RedisTallyStore:
        """Return the store of a generation beside the live one."""
        return RedisTallyStore(self._client, self._url, self._keys, beside=name)

    async def live(self) -> str:
        """Return the name of the live generation."""
        with translated(self._url):
            live: Any = await self._client.get(self._keys.live)
            return _name(live)

    async def found(self) -> list[Generation]:
        """Return every generation of which there is a key, in the order of their numbers."""
        names: set[str] = set()
        with translated(self._url):
            async for key in self._client.scan_iter(self._keys.of_generations, count=SCANNED):
                names.add(self._keys.generation_of(key.decode(errors="replace")))
        return [await self.look(name) for name in sorted(names - {""}, key=number)]

    async def look(self, name: str) -> Generation:
        """Return how far a generation reaches."""
        with translated(self._url):
            try:
                found: Any = await self._client.hmget(self._keys.generation(name).checkpoint, "position", "entries")
                position, entries = found
                order((position or b"").decode())
                return Generation(name, Position(position.decode()), int(entries or 0))
            except ValueError:
                return Generation(name, None, 0)
            except ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                return Generation(name, None, 0)

    async def swap(self, name: str, held: Checkpoint) -> Position | None:
        """Make a generation the live one, in one step: from then on the projector goes on in it.

        Return None once it is live; or where the live one stands, if it is further than this one. `held` is how far the
        caller has filled it.

        Raises:
            UsageError: it is no longer there as the caller filled it.

        """
        with translated(self._url):
            while True:
                async with self._client.pipeline(transaction=True) as pipe:
                    await pipe.watch(self._keys.live)
                    named: Any = await pipe.get(self._keys.live)
                    live = _name(named)
                    if live == name:
                        return None
                    await pipe.watch(*(self._keys.generation(one).checkpoint for one in (live, name)))
                    live_at = (await self.look(live)).position or START
                    at = (await self.look(name)).position or START
                    if order(at) < order(held.position):
                        raise UsageError(moved_on(self._keys.side, name))
                    if order(at) < order(live_at):
                        return live_at
                    pipe.multi()  # type: ignore[no-untyped-call]
                    pipe.set(self._keys.live, name)
                    try:
                        await pipe.execute()
                    except WatchError:  # the projector has recorded a turn, or somebody else has swapped
                        continue
                    return None

    async def drop(self, name: str) -> bool:
        """Remove a generation as a whole; False, and nothing is removed, if it is the live one by now."""
        with translated(self._url):
            found = [key async for key in self._client.scan_iter(self._keys.of_generations, count=SCANNED)]
            keys = {key for key in found if self._keys.generation_of(key.decode(errors="replace")) == name}
            while True:
                async with self._client.pipeline(transaction=True) as pipe:
                    await pipe.watch(self._keys.live)
                    live: Any = await pipe.get(self._keys.live)
                    if _name(live) == name:
                        return False
                    pipe.multi()  # type: ignore[no-untyped-call]
                    # All at once: what remains is never a part of a generation. The server frees them by and by.
                    pipe.unlink(*keys, *self._keys.generation(name).all)
                    try:
                        await pipe.execute()
                    except WatchError:
                        continue
                    return True


def number(name: str) -> int:
    """Return the number of a generation; 0 for a name that is none of ours."""
    digits = name.removeprefix("g")
    return int(digits) if name[:1] == "g" and digits.isascii() and digits.isdigit() else 0


def moved_on(side: str, name: str) -> str:
    """Say that a generation is not as it was left."""
    return (
        f"generation {name} of side {side} was changed meanwhile, by another `fieldtally rebuild`: let that one end, "
        "or run this again"
    )


def _name(live: bytes | None) -> str:
    return live.decode() if live else FIRST_GENERATION
