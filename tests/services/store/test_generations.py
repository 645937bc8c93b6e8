"""Generations: which there are, a swap in one step that never goes back, a removal that never takes the live one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from redis.asyncio.client import Pipeline

from schemas.tallies import Checkpoint
from schemas.vocabulary import Position, Side
from services.runtime.errors import DamagedLogError, UsageError
from services.store.connection import connect
from services.store.contract import StoredAt
from services.store.door import Known, RedisDoor
from services.store.generations import Generation, RedisGenerations, number
from services.store.keys import PartitionKeys
from tests.asynchronous import asynchronous


@asynccontextmanager
async def generations(url: str, prefix: str) -> AsyncIterator[RedisGenerations]:
    client = connect(url)
    try:
        yield RedisGenerations(client, url, PartitionKeys(prefix, Side("SI")))
    finally:
        await client.aclose()


@pytest.fixture
def key(prefix: str) -> Callable[[str], str]:
    return lambda name: f"{{{prefix}:SI}}:{name}"


@pytest.fixture
def stand(client: redis.Redis, key: Callable[[str], str]) -> Callable[..., Checkpoint]:
    """Let a generation stand at a position."""

    def call(name: str, milliseconds: int) -> Checkpoint:
        mapping = {"position": f"{milliseconds}-0", "entries": milliseconds, "fold_version": 1}
        client.hset(key(f"{name}:checkpoint"), mapping=mapping)
        return Checkpoint(Position(f"{milliseconds}-0"), milliseconds, 1)

    return call


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let something happen once between the reading under WATCH and what is decided by it."""

    def call(happens: Callable[[], object]) -> None:
        multi, left = Pipeline.multi, [happens]

        def first(pipe: Any) -> None:
            if left:
                left.pop()()
            multi(pipe)  # type: ignore[no-untyped-call]

        monkeypatch.setattr(Pipeline, "multi", first)

    return call


@asynchronous
async def test_all_there_are_are_found_with_how_far_they_reach(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str], stand: Callable[..., Checkpoint]
) -> None:
    stand("g2", 5)
    stand("g10", 7)
    client.hset(key("g3:index"), "a", "b")
    client.set(key("g4:checkpoint"), "no hash")
    client.hset(key("g5:checkpoint"), "position", "yesterday")
    client.hset(key("g6:checkpoint"), mapping={"position": "6-0", "entries": "many"})
    for other in ("g:tallies", "g0:tallies", "gx:tallies", "live", "g7", "log"):
        client.set(key(other), "no generation")
    client.set(f"x{key('g8:tallies')}", "of another prefix")
    async with generations(server_url, prefix) as side:
        assert [
            Generation("g2", Position("5-0"), 5),
            Generation("g3", None, 0),
            Generation("g4", None, 0),
            Generation("g5", None, 0),
            Generation("g6", None, 0),
            Generation("g10", Position("7-0"), 7),
        ] == await side.found()
        client.delete(key("live"))
        assert "g1" == await side.live()
    assert [0, 12, 0, 0, 0] == [number(name) for name in ("", "g12", "g", "banana", "g1x")]


@asynchronous
async def test_a_generation_is_swapped_in_unless_it_is_behind(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str], stand: Callable[..., Checkpoint]
) -> None:
    held = stand("g2", 5)
    async with generations(server_url, prefix) as side:
        stand("g1", 6)
        assert "6-0" == await side.swap("g2", held)
        assert not client.exists(key("live"))
        for behind in (5, 4):
            client.delete(key("live"))
            stand("g1", behind)
            assert await side.swap("g2", held) is None
            assert b"g2" == client.get(key("live"))
        assert await side.swap("g2", held) is None  # it is the live one


@asynchronous
async def test_a_projector_that_goes_on_meanwhile_is_not_set_back(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str], stand: Callable[..., Checkpoint],
    meanwhile: Callable[..., None],
) -> None:  # fmt: skip
    stand("g1", 5)
    held = stand("g2", 5)
    meanwhile(lambda: stand("g1", 6))
    async with generations(server_url, prefix) as side:
        assert "6-0" == await side.swap("g2", held)
    assert not client.exists(key("live"))


@asynchronous
async def test_another_swap_meanwhile_is_looked_at(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str], stand: Callable[..., Checkpoint],
    meanwhile: Callable[..., None],
) -> None:  # fmt: skip
    stand("g1", 5)
    held = stand("g2", 5)
    stand("g3", 9)
    meanwhile(lambda: client.set(key("live"), "g3"))
    async with generations(server_url, prefix) as side:
        assert "9-0" == await side.swap("g2", held)
    assert b"g3" == client.get(key("live"))


@asynchronous
@pytest.mark.parametrize("gone", [True, False], ids=["removed", "set back"])
async def test_what_is_no_longer_as_it_was_filled_is_not_swapped_in(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str], stand: Callable[..., Checkpoint],
    meanwhile: Callable[..., None], gone: bool,  # noqa: FBT001  # a parameter of the test
) -> None:  # fmt: skip
    held = stand("g2", 5)
    meanwhile(lambda: client.delete(key("g2:checkpoint")) if gone else stand("g2", 4))
    async with generations(server_url, prefix) as side:
        with pytest.raises(UsageError, match="generation g2 of side SI was changed meanwhile"):
            await side.swap("g2", held)
    assert not client.exists(key("live"))


@asynchronous
async def test_a_removal_takes_all_of_a_generation_and_nothing_else(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str]
) -> None:
    kinds = ("checkpoint", "tallies", "index", "amendments", "devices", "operations", "parked", "of a later version")
    for name in ("g1", "g2", "g20"):
        for kind in kinds:
            client.hset(key(f"{name}:{kind}"), "a", "b")
    async with generations(server_url, prefix) as side:
        assert await side.drop("g2")
        assert not await side.drop("g1")
        assert ["g1", "g20"] == [one.name for one in await side.found()]
    assert 2 * len(kinds) == len(client.keys(key("*")))


@asynchronous
async def test_what_becomes_the_live_one_meanwhile_is_not_removed(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str], stand: Callable[..., Checkpoint],
    meanwhile: Callable[..., None],
) -> None:  # fmt: skip
    stand("g2", 5)
    meanwhile(lambda: client.set(key("live"), "g2"))
    async with generations(server_url, prefix) as side:
        assert not await side.drop("g2")
    assert client.exists(key("g2:checkpoint"))


@asynchronous
async def test_a_key_of_another_kind_is_said(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str]
) -> None:
    client.hset(key("live"), "a", "b")
    async with generations(server_url, prefix) as side:
        for call in (side.live(), side.drop("g2"), side.swap("g2", Checkpoint())):
            with pytest.raises(DamagedLogError, match="holds another kind of value"):
                await call


@asynchronous
async def test_a_turn_beside_is_refused_once_that_generation_is_live(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str], stand: Callable[..., Checkpoint]
) -> None:
    held = stand("g2", 5)
    async with generations(server_url, prefix) as side:
        store = side.store("g2")
        assert await store.open_turn(StoredAt("g2", held), Position("6-0"), []) == []
        client.set(key("live"), "g2")
        assert await store.open_turn(StoredAt("g2", held), Position("6-0"), []) is None
        await store.close()


@asynchronous
async def test_the_gateway_is_told_that_an_index_is_no_longer_the_live_one(
    server_url: str, prefix: str, client: redis.Redis, key: Callable[[str], str]
) -> None:
    server = connect(server_url)
    door = RedisDoor(server, server_url, PartitionKeys(prefix, Side("SI")))
    try:
        assert await door.look("g1", [b"x"]) == Known({}, {}, 0)
        client.set(key("live"), "g2")
        assert await door.look("g1", [b"x"]) is None
        assert await door.look("g2", [b"x"]) == Known({}, {}, 0)
    finally:
        await door.close()
        await server.aclose()
