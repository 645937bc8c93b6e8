"""Who may look: by a token in a cookie or as a bearer, asked for anew all the time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
import redis

from schemas.principals import ROLES
from schemas.screen import HEARTBEAT_S
from schemas.vocabulary import Side
from services.control_room import sessions as module
from services.control_room.routes import CHECK_AGAIN_S
from services.control_room.sessions import BELIEVED_S, COOKIE, FAILED_S, Sessions, cookie_for, token_of
from services.runtime.errors import UnreachableError
from services.runtime.settings import Settings
from services.store.connection import connect
from services.store.principals import RedisPrincipals, token_digest
from tests.asynchronous import asynchronous
from tests.gateways import enrolled
from tests.services.control_room.rooms import BOTH

NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Door:
    """Sessions with a clock that stands still until it is turned."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis_url
        self.seconds = 1_000.0
        self._client = connect(settings.redis_url)
        principals = RedisPrincipals(self._client, settings.redis_url, settings.prefix)
        self.sessions = Sessions(principals, BOTH, lambda: self.seconds, self.now)

    def now(self) -> datetime:
        """Return what time it is."""
        return NOW + timedelta(seconds=self.seconds - 1_000)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("given", "seen"),
    [("SI", ("SI",)), ("HR", ("HR",)), ("SI,HR", BOTH), ("HR,SI", BOTH), ("HR,AT", ("HR",)), ("AT", None)],
)
@asynchronous
async def test_viewers_and_auditors_see_the_sides_that_they_were_given(
    client: redis.Redis, settings: Settings, role: Any, given: str, seen: tuple[Side, ...] | None
) -> None:
    token = enrolled(client, settings.prefix, role, given, unit="one")
    async with Door(settings) as door:
        assert (seen if role in ("viewer", "auditor") else None) == await door.sessions.audience(token)


@asynchronous
async def test_no_token_and_no_known_one_sees_nothing(client: redis.Redis, settings: Settings) -> None:
    token = enrolled(client, settings.prefix, "viewer")
    async with Door(settings) as door:
        for wrong in ("", " ", token[:-1], token + "x", token.swapcase(), "x" * 100_000, "\udc80", token_digest(token)):
            assert await door.sessions.audience(wrong) is None


@asynchronous
async def test_a_damaged_row_lets_nobody_in(client: redis.Redis, settings: Settings) -> None:
    client.hset(f"{settings.prefix}:principals", token_digest("token"), '{"role":"viewer"}')
    async with Door(settings) as door:
        assert await door.sessions.audience("token") is None


@asynchronous
async def test_an_expired_token_sees_nothing_from_that_moment(client: redis.Redis, settings: Settings) -> None:
    token = enrolled(client, settings.prefix, "viewer", expires=NOW + timedelta(seconds=2))
    async with Door(settings) as door:
        assert await door.sessions.audience(token)
        door.seconds += 2  # before it would have been asked for again
        assert await door.sessions.audience(token) is None


@asynchronous
async def test_a_revoked_token_and_a_new_one_are_known_soon(client: redis.Redis, settings: Settings) -> None:
    token = enrolled(client, settings.prefix, "viewer")
    key, digest = f"{settings.prefix}:principals", token_digest(token)
    row: Any = client.hget(key, digest)
    async with Door(settings) as door:
        for now_there in (True, False, True):
            if now_there:
                client.hset(key, digest, row)
            else:
                client.hset(key, digest, row.replace(b'"active"', b'"revoked"'))
            door.seconds += BELIEVED_S
            assert now_there == (await door.sessions.audience(token) is not None)


@asynchronous
async def test_between_two_looks_the_server_is_not_asked(client: redis.Redis, settings: Settings) -> None:
    """Two hundred screens ask at every heartbeat."""
    token = enrolled(client, settings.prefix, "viewer")
    async with Door(settings) as door:
        assert await door.sessions.audience(token)
        client.delete(f"{settings.prefix}:principals")
        door.seconds += BELIEVED_S - 0.1
        assert await door.sessions.audience(token)
        door.seconds += 0.1
        assert await door.sessions.audience(token) is None


def test_a_revoked_token_sees_nothing_after_ten_seconds() -> None:
    """A stream asks when something is sent and at most so often, and is told what was believed so long ago."""
    assert CHECK_AGAIN_S + HEARTBEAT_S + BELIEVED_S < 10


@asynchronous
async def test_many_who_ask_at_once_cost_one_question_each_and_one_at_a_time(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [enrolled(client, settings.prefix, "viewer", unit=f"wall{number}") for number in range(20)]
    asked: list[str] = []
    at_once = 0
    find = RedisPrincipals.find

    async def counted(self: RedisPrincipals, digest: str) -> Any:
        nonlocal at_once
        at_once += 1
        assert 1 == at_once
        asked.append(digest)
        found = await find(self, digest)
        at_once -= 1
        return found

    monkeypatch.setattr(RedisPrincipals, "find", counted)
    async with Door(settings) as door:
        answers = await asyncio.gather(*(door.sessions.audience(token) for token in tokens * 10))
        assert [("SI",)] * 200 == answers
        assert sorted(map(token_digest, tokens)) == sorted(asked)


@asynchronous
async def test_a_server_that_is_away_is_asked_once_a_second(settings: Settings) -> None:
    """Each question to a server that hangs costs seconds: those who wait share the answer."""
    asked: list[str] = []

    async def fail(_: RedisPrincipals, digest: str) -> Any:
        asked.append(digest)
        raise UnreachableError("away")

    async with Door(settings) as door:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RedisPrincipals, "find", fail)
            for _ in range(2):
                answers = await asyncio.gather(
                    *(door.sessions.audience(f"token{number}") for number in range(50)), return_exceptions=True
                )
                assert {"away"} == set(map(str, answers))
                door.seconds += FAILED_S
        assert 2 == len(asked)
        assert await door.sessions.audience("token0") is None


@asynchronous
async def test_guesses_do_not_fill_the_memory(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 10)
    async with Door(settings) as door:
        for number in range(50):
            await door.sessions.audience(f"guess{number}")
        assert 10 == len(door.sessions._believed)


@pytest.mark.parametrize(
    ("cookie", "authorization", "token"),
    [
        (f"{COOKIE}=abc", "", "abc"),
        (f"a=1; {COOKIE}=abc; b=2", "", "abc"),
        (f'other={{"a": [1]}}; {COOKIE}=abc', "", "abc"),  # what another program on this host has set
        (f"č=š;{COOKIE}=abc", "", "abc"),
        (f"x{COOKIE}=abc", "", ""),
        (f"{COOKIE}", "", ""),
        ("", "", ""),
        ("", "Bearer abc", "abc"),
        ("", "bearer  abc ", "abc"),
        ("", "Basic abc", ""),
        (f"{COOKIE}=cookie", "Bearer bearer", "bearer"),
    ],
)
def test_a_token_is_found_in_the_cookie_or_as_a_bearer(cookie: str, authorization: str, token: str) -> None:
    assert token == token_of(cookie, authorization)


def test_the_cookie_is_for_this_site_alone_and_not_for_scripts() -> None:
    for secure in (False, True):
        parts = cookie_for("abc", secure=secure).split("; ")
        assert f"{COOKIE}=abc" == parts[0]
        assert {"HttpOnly", "SameSite=Lax", "Path=/", f"Max-Age={400 * 86_400}"} < set(parts)
        assert secure == ("Secure" in parts)
    assert "Max-Age=0" in cookie_for("", secure=False)
