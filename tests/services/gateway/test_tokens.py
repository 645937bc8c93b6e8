"""Tokens and rates: who is believed for how long, what a token may send, and that a token is never seen again."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, cast

import msgspec
import pytest
import redis
from hypothesis import given as examples
from hypothesis import strategies as st

from schemas.http import EVENT_TYPE
from schemas.principals import Principal
from services.gateway import tokens as tokens_module
from services.gateway.tokens import (
    BELIEVED_S,
    BURST_S,
    REMEMBERED_MAX,
    TOKEN_CHARACTERS_MAX,
    RateLimit,
    Tokens,
    not_taken,
)
from services.runtime.settings import Settings
from services.store.principals import RedisPrincipals, token_digest
from tests import given
from tests.gateways import LONG_AGO, Sender, enrolled, reported, running_gateway
from tests.projectors import Lines, log_of
from tests.waiting import wait_for

NOON = datetime(2024, 3, 14, 12, tzinfo=UTC)
PROMISED_S = 10.0
UNIT = Principal(role="unit", side="SI", unit="SI-MP-07", device="9f3c2a", enrolled=LONG_AGO)


class Desk:
    """A headquarters that keeps its principals, and clocks that a test moves."""

    def __init__(self) -> None:
        self.rows: dict[str, Principal] = {}
        self.asked: list[str] = []
        self.seconds = 1000.0
        self.tokens = Tokens(cast("RedisPrincipals", self), lambda: self.seconds, self.now)

    def now(self) -> datetime:
        """Return the time of day."""
        return NOON + timedelta(seconds=self.seconds - 1000)

    async def find(self, digest: str) -> Principal | None:
        """Find a principal as the store does."""
        self.asked.append(digest)
        return self.rows.get(digest)

    def enrol(self, **more: Any) -> str:
        """Make a principal."""
        token = secrets.token_urlsafe(32)
        self.rows[token_digest(token)] = msgspec.structs.replace(UNIT, **more)
        return token

    def change(self, token: str, **more: Any) -> None:
        """Change a principal."""
        digest = token_digest(token)
        self.rows[digest] = msgspec.structs.replace(self.rows[digest], **more)

    def takes(self, token: str) -> bool:
        """Tell whether a token is taken now; a request finds the principal, or nobody."""
        found = asyncio.run(self.tokens.principal(f"Bearer {token}"))
        assert found is None or found == (token_digest(token), self.rows[token_digest(token)])
        return found is not None


# Who is believed


def test_a_token_is_stored_as_its_sha_256_and_looked_for_by_it() -> None:
    desk = Desk()
    token = desk.enrol()
    assert desk.takes(token)
    assert [hashlib.sha256(token.encode()).hexdigest()] == desk.asked


@examples(st.lists(st.floats(0, 20), max_size=8), st.floats(0, 15))
def test_a_revoked_token_is_refused_within_ten_seconds_however_often_it_is_used(
    uses: list[float], revoked: float
) -> None:
    desk = Desk()
    token = desk.enrol()
    moments = sorted([*((at, "use") for at in uses), (revoked, "revoke"), (revoked + PROMISED_S, "end")])
    for at, what in moments:
        desk.seconds = 1000.0 + at
        if what == "revoke":
            desk.rows[token_digest(token)] = msgspec.structs.replace(UNIT, state="revoked")
        else:
            found = asyncio.run(desk.tokens.principal(f"Bearer {token}")) is not None
            if at < revoked:
                assert found
            if at >= revoked + PROMISED_S:
                assert not found


def test_what_is_believed_is_read_anew_after_that_time_and_not_before() -> None:
    desk = Desk()
    token = desk.enrol()
    assert BELIEVED_S < PROMISED_S
    assert [True, True] == [desk.takes(token), desk.takes(token)]
    desk.seconds += BELIEVED_S - 0.001
    assert desk.takes(token)
    assert 1 == len(desk.asked)
    desk.seconds += 0.001
    assert desk.takes(token)
    assert 2 == len(desk.asked)


def test_a_token_ends_at_the_moment_it_expires_also_while_it_is_believed() -> None:
    desk = Desk()
    token = desk.enrol(expires=NOON + timedelta(seconds=2))
    desk.seconds += 1.999
    assert desk.takes(token)
    desk.seconds += 0.001
    assert not desk.takes(token)
    assert 1 == len(desk.asked)


def test_a_rotated_token_and_the_new_one_are_both_taken_while_they_overlap() -> None:
    desk = Desk()
    old = desk.enrol()
    assert desk.takes(old)
    new = desk.enrol()
    desk.rows[token_digest(old)] = msgspec.structs.replace(UNIT, expires=NOON + timedelta(seconds=60))
    desk.seconds += PROMISED_S
    assert [True, True] == [desk.takes(old), desk.takes(new)]
    desk.seconds += 60
    assert [False, True] == [desk.takes(old), desk.takes(new)]


def test_a_device_that_is_enrolled_after_it_asked_is_taken_within_the_same_time() -> None:
    desk = Desk()
    token = secrets.token_urlsafe(32)
    assert not desk.takes(token)
    desk.rows[token_digest(token)] = UNIT
    desk.seconds += BELIEVED_S
    assert desk.takes(token)


@examples(st.text(max_size=50) | st.sampled_from(["Bearer", "Bearer ", "Basic x", "Bearer " + "x" * 201]))
def test_what_is_no_token_is_nobody(authorization: str) -> None:
    assert asyncio.run(Desk().tokens.principal(authorization)) is None


def test_a_token_that_is_too_long_is_not_even_looked_for() -> None:
    desk = Desk()
    for token in ("x" * (TOKEN_CHARACTERS_MAX + 1), "", "   "):
        assert asyncio.run(desk.tokens.principal(f"Bearer {token}")) is None
    assert [] == desk.asked


def test_a_token_that_is_found_where_another_is_believed_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a digest says where to look; the whole one says who it is."""
    monkeypatch.setattr(tokens_module, "token_digest", lambda presented: "0" * 63 + presented)
    desk = Desk()
    desk.rows["0" * 63 + "1"] = UNIT
    assert asyncio.run(desk.tokens.principal("Bearer 1")) == ("0" * 63 + "1", UNIT)
    assert asyncio.run(desk.tokens.principal("Bearer 2")) is None
    assert asyncio.run(desk.tokens.principal("Bearer 1")) is not None
    assert ["0" * 63 + end for end in "121"] == desk.asked


GOOD = "x" * 43


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        ("", "no Authorization header"),
        (GOOD, "does not begin with `Bearer`"),
        ("Basic dXNlcjpwYXNz", "does not begin with `Bearer`"),
        (f"Bearer\t{GOOD}", "does not begin with `Bearer`"),
        ("Bearer", "no token"),
        ("Bearer  ", "no token"),
        (f'Bearer "{GOOD}"', "in quotes or brackets"),
        (f"Bearer <{GOOD}>", "in quotes or brackets"),
        (f"Bearer {GOOD[:20]} {GOOD[20:]}", "a blank"),
        (f"Bearer {GOOD[:-1]}č", "no token has"),
        (f"Bearer {GOOD[:-1]}=", "no token has"),
        (f"Bearer {GOOD[:-1]}", "the token has 42 characters"),
        (f"Bearer {GOOD}x", "the token has 44 characters"),
        ("Bearer " + "x" * 5_000, "the token has 5,000 characters"),
    ],
)
def test_a_token_that_cannot_be_one_is_told_why(authorization: str, said: str) -> None:
    detail = not_taken(authorization)
    assert said in detail
    assert "fieldtally devices enrol" in detail
    assert GOOD[:20] not in detail


def test_of_a_token_that_could_be_one_nothing_is_told(client: redis.Redis, settings: Settings) -> None:
    """Whether it was never given out, has ended or was revoked, is nobody's business."""
    tokens = [
        secrets.token_urlsafe(32),
        enrolled(client, settings.prefix, state="revoked"),
        enrolled(client, settings.prefix, expires=LONG_AGO),
    ]
    with running_gateway(settings) as address:
        details = []
        for token in tokens:
            with Sender(address, token) as sender:
                details.append(sender.one(reported(1)).json()["detail"])
    assert len(tokens[0]) == tokens_module.TOKEN_CHARACTERS
    assert {not_taken(f"Bearer {GOOD}")} == set(details)


def test_guesses_without_end_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert REMEMBERED_MAX <= 100_000
    monkeypatch.setattr(tokens_module, "REMEMBERED_MAX", 100)
    desk = Desk()
    limit = RateLimit(1, lambda: desk.seconds)
    token = desk.enrol()
    for guess in range(300):
        assert not desk.takes(str(guess))
        limit.take(str(guess), 1)
    assert 100 == len(desk.tokens._believed) == len(limit._buckets)
    assert desk.takes(token)


# How fast


def test_a_token_has_ten_seconds_worth_at_once_and_then_its_rate() -> None:
    seconds = [0.0]
    limit = RateLimit(5, lambda: seconds[0])
    for _ in range(5 * BURST_S):
        assert 0 == limit.wait_s("a")
        limit.take("a", 1)
    assert 1 == limit.wait_s("a")
    seconds[0] += 0.19
    assert 1 == limit.wait_s("a")
    seconds[0] += 0.02
    assert 0 == limit.wait_s("a")


def test_a_batch_is_let_in_as_a_whole_and_the_next_waits_until_it_is_paid() -> None:
    seconds = [0.0]
    limit = RateLimit(5, lambda: seconds[0])
    limit.take("a", 500)
    wait_s = limit.wait_s("a")
    assert ceil((500 - 50 + 1) / 5) == wait_s
    seconds[0] += wait_s - 1
    assert 1 == limit.wait_s("a")
    seconds[0] += 1
    assert 0 == limit.wait_s("a")


def test_the_limit_of_one_token_touches_no_other() -> None:
    limit = RateLimit(1, lambda: 0.0)
    limit.take("a", 1000)
    assert limit.wait_s("a") > 0
    assert 0 == limit.wait_s("b")


@examples(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 100), st.integers(0, 500)), max_size=20))
def test_who_waits_as_long_as_told_is_let_in_and_nobody_gets_more_than_the_rate_allows(
    rate: int, sends: list[tuple[float, int]]
) -> None:
    seconds = [0.0]
    limit = RateLimit(rate, lambda: seconds[0])
    taken = 0
    for pause, reports in sends:
        seconds[0] += pause
        wait_s = limit.wait_s("a")
        assert isinstance(wait_s, int)
        seconds[0] += wait_s + 0.001  # for what is lost in rounding
        assert 0 == limit.wait_s("a")
        assert taken < rate * (BURST_S + seconds[0]) + 1e-6
        limit.take("a", reports)
        taken += max(1, reports)


# Through the door


def test_a_token_that_is_revoked_is_out_and_one_that_is_enrolled_is_in(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "BELIEVED_S", 0.1)
    token = enrolled(client, settings.prefix)
    with running_gateway(settings) as address, Sender(address, token) as unit:
        assert 201 == unit.one(reported(1)).status_code
        revoked = msgspec.json.encode(msgspec.structs.replace(UNIT, state="revoked"))
        client.hset(f"{settings.prefix}:principals", token_digest(token), revoked)
        wait_for(lambda: 401 == unit.one(reported(1)).status_code, what="the revocation to be in force")
        client.hset(f"{settings.prefix}:principals", token_digest(token), msgspec.json.encode(UNIT))
        wait_for(lambda: 204 == unit.ask("HEAD", "/v1/events").status_code, what="the token to be taken again")


@pytest.mark.parametrize("row", [b"", b"{}", b"null", b'{"role":"unit"}', b'{"role":"king","side":"SI"}'])
def test_a_principal_that_cannot_be_read_lets_nobody_in(client: redis.Redis, settings: Settings, row: bytes) -> None:
    token = secrets.token_urlsafe(32)
    client.hset(f"{settings.prefix}:principals", token_digest(token), row)
    with running_gateway(settings) as address, Sender(address, token) as unit:
        assert unit.one(reported(1)).status_code in (401, 503)
        assert unit.ask("GET", "/v1/devices/me").status_code in (401, 503)
    assert [] == log_of(client, settings.prefix, "SI")


def test_a_token_and_what_a_report_says_are_in_no_log_line_and_no_answer(
    client: redis.Redis, settings_for: Callable[..., Settings], server_url: str
) -> None:
    settings = settings_for(server_url, RATE_LIMIT="1")
    lines = Lines()
    tokens = [
        enrolled(client, settings.prefix),
        enrolled(client, settings.prefix, "desk"),
        enrolled(client, settings.prefix, "viewer"),
        enrolled(client, settings.prefix, state="revoked"),
        secrets.token_urlsafe(32),
    ]
    marker = "Janez-Novak"
    answers = []
    with running_gateway(settings, lines) as address:
        for number, token in enumerate(tokens, 1):
            with Sender(address, token) as sender:
                answers += [
                    sender.one(reported(number, section=marker)),
                    sender.one(reported(number, section=marker)),
                    sender.one(reported(number, section=marker, persons={"AFG": 9})),
                    sender.one(reported(number, subject="SI-2000", section=marker)),
                    sender.one(reported(number, unit=marker)),
                    sender.one(reported(number), **{"fieldtally-sent": marker}),
                    sender.one(given.as_json({"id": marker, marker: marker})),
                    sender.batch(*[reported(number + 10 + at, section=marker) for at in range(12)]),
                    sender.batch(reported(number)),
                    sender.ask("POST", "/v1/events", content=marker, headers={"content-type": marker}),
                    sender.ask("POST", "/v1/events", content=marker, headers={"content-type": EVENT_TYPE}),
                    sender.ask("GET", f"/v1/{marker}"),
                    sender.ask("PUT", "/v1/operations"),
                    *(sender.ask("GET", path) for path in ("/v1/devices/me", "/v1/operations", "/metrics")),
                    sender.ask("HEAD", "/v1/events"),
                ]
    assert {200, 201, 202, 204, 400, 401, 403, 404, 405, 415, 422, 429} <= {answer.status_code for answer in answers}
    # The unknown member's name is said, so that it can be corrected; nothing else of a report ever is.
    said = "\n".join([answer.text + str(answer.headers) for answer in answers]).replace(f"unknown field `{marker}`", "")
    for text, where in ((str(lines), "log"), (said, "answers")):
        for token in tokens:
            assert token not in text, where
            assert token_digest(token) not in text, where
        assert marker not in text, where
    assert lines.named("requests_answered")
    assert lines.named("request_refused")
