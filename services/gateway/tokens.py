"""Who sends a request, and how fast: principals by their tokens, read anew every few seconds, and a limit for each."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from math import ceil
from typing import Final

from msgspec import Struct

from schemas.principals import Principal
from services.store.principals import DamagedPrincipalsError, RedisPrincipals, token_digest

BELIEVED_S: Final = 4.0
"""For how long a principal is taken as read: a token that is revoked ends within that time, 10 s being promised."""
REMEMBERED_MAX: Final = 20_000
LOOKS_MAX: Final = 16
"""Tokens looked up at once: when hundreds of phones come back at the same moment, they wait for connections in line."""
TOKEN_CHARACTERS: Final = 43
TOKEN_CHARACTERS_MAX: Final = 200
BURST_S: Final = 10
"""How many seconds' worth of reports a token may send at once: a device that was offline has some."""


FOUND_BY: Final = 32
"""Characters of a digest by which what is believed is found: 128 bits of it."""

_QUOTES: Final = frozenset("\"'`<>[]{}“”„‘’«»")
_BASE_64_URL: Final = re.compile(r"[A-Za-z0-9_-]+")


class _Believed(Struct):
    digest: str
    principal: Principal | None
    until: float


class Tokens:
    """The principals of a gateway; `monotonic` counts seconds, `now` says what time it is."""

    def __init__(
        self, principals: RedisPrincipals, monotonic: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._principals = principals
        self._monotonic = monotonic
        self._now = now
        self._believed: OrderedDict[str, _Believed] = OrderedDict()
        self._looking = asyncio.Semaphore(LOOKS_MAX)

    async def principal(self, authorization: str) -> tuple[str, Principal] | None:
        """Return whom an Authorization header stands for, with the digest of the token; None if nobody.

        No token is compared with another, only SHA-256 digests of tokens. What is believed is found by the first half
        of a digest, and the whole then compared in constant time. How long the server takes to find a digest says at
        most how far it agrees with a stored one, and no token can be computed from that.
        """
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_CHARACTERS_MAX:
            return None
        digest = token_digest(token)
        believed = self._believed.get(digest[:FOUND_BY])
        if (
            believed is None
            or believed.until <= self._monotonic()
            or not hmac.compare_digest(believed.digest.encode(), digest.encode())
        ):
            try:
                async with self._looking:
                    found = await self._principals.find(digest)
            except DamagedPrincipalsError:  # `devices list` says which; until it is mended it lets nobody in
                found = None
            believed = _Believed(digest, found, self._monotonic() + BELIEVED_S)
            self._believed[digest[:FOUND_BY]] = believed
            self._believed.move_to_end(digest[:FOUND_BY])
            while len(self._believed) > REMEMBERED_MAX:
                self._believed.popitem(last=False)
        if believed.principal is None or not believed.principal.valid_at(self._now()):
            return None
        return digest, believed.principal


def not_taken(authorization: str) -> str:
    """Say why an Authorization header stands for nobody; never whether its token is one that once was good."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if not authorization:
        said = "there is no Authorization header"
    elif scheme.lower() != "bearer":
        said = "the Authorization header does not begin with `Bearer` and a blank"
    elif not token:
        said = "no token stands after `Bearer`"
    elif _QUOTES.intersection(token):
        said = "the token stands in quotes or brackets; send it without them"
    elif token.split() != [token]:
        said = "there is a blank or a line break within the token"
    elif not _BASE_64_URL.fullmatch(token):
        said = "there are characters in the token that no token has"
    elif len(token) != TOKEN_CHARACTERS:
        said = f"the token has {len(token):,} characters, and every token {TOKEN_CHARACTERS}"
    else:
        return "the token is unknown, revoked or expired; ask your headquarters for a new one, and keep the reports"
    return f"{said}: send `Authorization: Bearer` with a token that `fieldtally devices enrol` gave out"


class _Bucket(Struct):
    left: float
    at: float


class RateLimit:
    """So many reports a second for each token, with ten seconds' worth at once.

    A request is let in as long as anything is left, and costs what it brings, one at least: a large batch is not
    refused, the next one waits.
    """

    def __init__(self, reports_per_s: int, monotonic: Callable[[], float]) -> None:
        self._rate = reports_per_s
        self._burst = reports_per_s * BURST_S
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, token: str, reports: int = 1) -> int:
        """Return for how many whole seconds this token has to wait until it may send so many; 0 if it may go on."""
        left = self._bucket(token).left
        return 0 if left >= reports else max(1, ceil((reports - left) / self._rate))

    def take(self, token: str, reports: int) -> None:
        """Take off what is sent."""
        self._bucket(token).left -= reports

    def _bucket(self, token: str) -> _Bucket:
        now = self._monotonic()
        bucket = self._buckets.get(token)
        if bucket is None:
            bucket = self._buckets[token] = _Bucket(self._burst, now)
            while len(self._buckets) > REMEMBERED_MAX:
                self._buckets.popitem(last=False)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        return bucket
