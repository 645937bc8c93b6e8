"""Principals are found by the digests of their tokens, changed without losing what others change, and never trusted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from schemas.principals import Principal
from services.runtime.errors import DamagedLogError, UnreachableError
from services.store.connection import connect
from services.store.principals import DamagedPrincipalsError, RedisPrincipals, is_part, token_digest
from tests.asynchronous import asynchronous
from tests.servers import OwnServer

ENROLLED = datetime(2024, 3, 14, 3, 12, tzinfo=UTC)
UNIT = Principal(role="unit", side="SI", unit="SI-MP-07", device="9f3c2a", enrolled=ENROLLED)
VIEWER = Principal(
    role="viewer", side="SI,HR", unit="wall", device="1", enrolled=ENROLLED, expires=ENROLLED + timedelta(days=1)
)
ONE, OTHER = token_digest("one"), token_digest("other")


@asynccontextmanager
async def store(url: str, prefix: str) -> AsyncIterator[RedisPrincipals]:
    client = connect(url)
    try:
        yield RedisPrincipals(client, url, prefix)
    finally:
        await client.aclose()


async def put(principals: RedisPrincipals, rows: Mapping[str, Principal]) -> None:
    """Store principals by the digests of their tokens."""
    await principals.change(lambda _: (rows, None))


# --- digests ---


def test_a_digest_is_the_sha_256_of_the_token() -> None:
    """The example of FIPS 180-2."""
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == token_digest("abc")


@pytest.mark.parametrize("token", ["", "č", "\ud800", "a" * 100_000])
def test_whatever_is_presented_has_a_digest(token: str) -> None:
    assert 64 == len(token_digest(token))


@pytest.mark.parametrize("name", ["SI-MP-07", "9f3c2a", "-", "a" * 64])
def test_units_and_devices_have_names_like_these(name: str) -> None:
    assert is_part(name)


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a/b", "a_b", "č", "a\n", "٣"])
def test_units_and_devices_have_no_names_like_these(name: str) -> None:
    assert not is_part(name)


# --- found ---


@asynchronous
async def test_what_was_put_is_found_by_its_digest(server_url: str, prefix: str) -> None:
    async with store(server_url, prefix) as principals:
        await put(principals, {ONE: UNIT, OTHER: VIEWER})
        assert (UNIT, VIEWER) == (await principals.find(ONE), await principals.find(OTHER))
        assert {ONE: UNIT, OTHER: VIEWER} == await principals.everyone()


@asynchronous
async def test_an_unknown_token_stands_for_nobody(server_url: str, prefix: str) -> None:
    async with store(server_url, prefix) as principals:
        assert await principals.find(ONE) is None
        assert {} == await principals.everyone()


@asynchronous
async def test_nobody_is_known_under_another_prefix(server_url: str, prefix: str) -> None:
    async with store(server_url, prefix) as principals, store(server_url, f"{prefix}x") as others:
        await put(principals, {ONE: UNIT})
        assert await others.find(ONE) is None


@asynchronous
async def test_the_row_is_json_that_others_may_read(server_url: str, client: redis.Redis, prefix: str) -> None:
    async with store(server_url, prefix) as principals:
        await put(principals, {ONE: UNIT})
    rows: Any = client.hgetall(f"{prefix}:principals")
    assert [ONE.encode()] == list(rows)
    expected = {
        "role": "unit", "side": "SI", "unit": "SI-MP-07", "device": "9f3c2a", "enrolled": "2024-03-14T03:12:00Z",
        "state": "active", "expires": None,
    }  # fmt: skip
    assert expected == json.loads(rows[ONE.encode()])


# --- damage ---

ROW: dict[str, Any] = {
    "role": "unit", "side": "SI", "unit": "SI-MP-07", "device": "9f3c2a", "enrolled": "2024-03-14T03:12:00Z",
}  # fmt: skip
DAMAGED = {
    "no JSON": b"{",
    "no UTF-8": b'{"role":"\xff"}',
    "a list": b"[]",
    "nothing": b"",
    **{
        name: json.dumps(ROW | wrong).encode()
        for name, wrong in {
            "no such role": {"role": "admin"},
            "no such state": {"state": "on"},
            "no side": {"side": ""},
            "a side too many": {"side": "SI,HR"},
            "a side that is none": {"role": "viewer", "side": "SI,hr"},
            "an empty unit": {"unit": ""},
            "a path as device": {"device": "../x"},
            "a time without offset": {"enrolled": "2024-03-14T03:12:00"},
            "an end without offset": {"expires": "2024-03-14T03:12:00"},
        }.items()
    },
}


@pytest.mark.parametrize("row", DAMAGED.values(), ids=DAMAGED)
@asynchronous
async def test_a_damaged_row_lets_nobody_in_and_is_named(
    server_url: str, client: redis.Redis, prefix: str, row: bytes
) -> None:
    client.hset(f"{prefix}:principals", ONE, row)
    async with store(server_url, prefix) as principals:
        with pytest.raises(DamagedPrincipalsError) as raised:
            await principals.find(ONE)
    said = str(raised.value)
    assert f"{prefix}:principals" in said
    assert ONE in said
    assert "HDEL" in said
    assert said.isprintable()
    assert 4 == raised.value.exit_code


@asynchronous
async def test_damaged_rows_do_not_hide_the_others(server_url: str, client: redis.Redis, prefix: str) -> None:
    client.hset(f"{prefix}:principals", mapping={"\x1b[2J": "{}", OTHER: "x"})
    async with store(server_url, prefix) as principals:
        await put(principals, {ONE: UNIT})
        assert UNIT == await principals.find(ONE)
        with pytest.raises(DamagedPrincipalsError, match=r"in its field '\\x1b\[2J' and 1 more") as raised:
            await principals.everyone()
    assert {ONE: UNIT} == raised.value.sound
    assert str(raised.value).isprintable()


@asynchronous
async def test_a_field_that_is_no_digest_is_damage_however_good_its_row(
    server_url: str, client: redis.Redis, prefix: str
) -> None:
    """Whoever wrote it may have written the token itself."""
    client.hset(f"{prefix}:principals", "one", json.dumps(ROW))
    async with store(server_url, prefix) as principals:
        with pytest.raises(DamagedPrincipalsError) as raised:
            await principals.everyone()
    assert {} == raised.value.sound


@asynchronous
async def test_damaged_rows_are_neither_shown_to_a_change_nor_touched_by_it(
    server_url: str, client: redis.Redis, prefix: str
) -> None:
    client.hset(f"{prefix}:principals", OTHER, "x")
    async with store(server_url, prefix) as principals:
        await put(principals, {ONE: UNIT})
        assert {ONE: UNIT} == await principals.change(lambda known: ({ONE: VIEWER}, dict(known)))
        assert VIEWER == await principals.find(ONE)
    assert b"x" == client.hget(f"{prefix}:principals", OTHER)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(UNIT, side="SI,HR"),
        replace(UNIT, unit="a/b"),
        replace(UNIT, device=""),
        replace(UNIT, enrolled=datetime(2024, 3, 14)),  # noqa: DTZ001  # that is what is wrong
    ],
)
@asynchronous
async def test_what_would_be_damage_is_not_stored(
    server_url: str, client: redis.Redis, prefix: str, wrong: Principal
) -> None:
    async with store(server_url, prefix) as principals:
        with pytest.raises(ValueError, match=r"side|unit and device|without an offset"):
            await put(principals, {ONE: UNIT, OTHER: wrong})
    assert not client.exists(f"{prefix}:principals")


@asynchronous
async def test_another_kind_of_key_is_an_error_in_words(server_url: str, client: redis.Redis, prefix: str) -> None:
    client.set(f"{prefix}:principals", "x")
    async with store(server_url, prefix) as principals:
        for asked in (principals.find(ONE), principals.everyone(), principals.change(lambda _: ({}, None))):
            with pytest.raises(DamagedLogError, match="another kind of value"):
                await asked


@asynchronous
async def test_a_server_that_is_gone_is_an_error_in_words(fresh_server: OwnServer, prefix: str) -> None:
    async with store(fresh_server.url, prefix) as principals:
        await put(principals, {ONE: UNIT})
        fresh_server.kill()
        for asked in (principals.find(ONE), principals.everyone(), principals.change(lambda _: ({}, None))):
            with pytest.raises(UnreachableError, match="cannot reach"):
                await asked


# --- changed ---


@asynchronous
async def test_a_change_that_somebody_came_before_is_decided_again(
    server_url: str, client: redis.Redis, prefix: str
) -> None:
    seen: list[dict[str, Principal]] = []

    async with store(server_url, prefix) as principals:
        await put(principals, {OTHER: VIEWER})
        row: Any = client.hget(f"{prefix}:principals", OTHER)

        def decide(known: Mapping[str, Principal]) -> tuple[Mapping[str, Principal], str]:
            seen.append(dict(known))
            if len(seen) == 1:
                client.hset(f"{prefix}:principals", ONE, row)
            return {ONE: replace(known[OTHER], unit=f"wall-{len(seen)}")}, f"decided {len(seen)}"

        assert "decided 2" == await principals.change(decide)
        assert [{OTHER: VIEWER}, {OTHER: VIEWER, ONE: VIEWER}] == seen
        assert "wall-2" == (await principals.everyone())[ONE].unit


@asynchronous
async def test_a_change_of_nothing_writes_nothing_and_one_that_fails_neither(server_url: str, prefix: str) -> None:
    def refuse(_: Mapping[str, Principal]) -> tuple[Mapping[str, Principal], None]:
        raise LookupError

    async with store(server_url, prefix) as principals:
        await put(principals, {ONE: UNIT})
        assert 1 == await principals.change(lambda known: ({}, len(known)))
        with pytest.raises(LookupError):
            await principals.change(refuse)
        assert {ONE: UNIT} == await principals.everyone()


@asynchronous
async def test_of_many_changes_at_once_none_is_lost(server_url: str, prefix: str) -> None:
    """Each adds one to what it finds."""

    def count(known: Mapping[str, Principal]) -> tuple[Mapping[str, Principal], None]:
        return {ONE: replace(known[ONE], device=str(int(known[ONE].device) + 1))}, None

    async with store(server_url, prefix) as principals:
        await put(principals, {ONE: VIEWER})
        await asyncio.gather(*(principals.change(count) for _ in range(8)))
        assert "9" == (await principals.everyone())[ONE].device
