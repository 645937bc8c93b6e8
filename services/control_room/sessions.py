"""Who looks: viewers and auditors by the token that they logged in with, kept in a cookie, asked for anew all the time.

The cookie holds the token itself: a wall screen outlives every process here, and there is nothing to be kept for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from schemas.principals import Principal, Role
from schemas.vocabulary import Side
from services.control_room.streams import Audience
from services.runtime.errors import FieldtallyError
from services.store.principals import DamagedPrincipalsError, RedisPrincipals, token_digest

COOKIE: Final = "fieldtally_session"
COOKIE_S: Final = 400 * 86_400
"""As long as browsers keep one: whoever may look is asked for at every request."""
BELIEVED_S: Final = 3.0
"""With the wait for something to be sent on a stream, a revoked token sees nothing after 10 s."""
FAILED_S: Final = 1.0
REMEMBERED_MAX: Final = 2_000
TOKEN_CHARACTERS_MAX: Final = 200
LOOKERS: Final[tuple[Role, ...]] = ("viewer", "auditor")


class _Believed(Struct):
    principal: Principal | None
    until: float


class Sessions:
    """Those who may look; `monotonic` counts seconds, `now` says what time it is."""

    def __init__(
        self,
        principals: RedisPrincipals,
        sides: Sequence[Side],
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._principals = principals
        self._sides = tuple(sides)
        self._monotonic = monotonic
        self._now = now
        self._believed: OrderedDict[str, _Believed] = OrderedDict()
        self._asking = asyncio.Lock()
        self._failure: FieldtallyError | None = None
        self._failed_until = 0.0

    async def audience(self, token: str) -> Audience | None:
        """Return the sides that a token may see, of those there are here; None if it may see none."""
        principal = await self._valid(token)
        if principal is None or principal.role not in LOOKERS:
            return None
        given = principal.sides
        return tuple(side for side in self._sides if side in given) or None

    async def reports(self, token: str) -> bool:
        """Tell whether a token is good, but for reporting: whoever has it may be told so."""
        principal = await self._valid(token)
        return principal is not None and principal.role not in LOOKERS

    async def _valid(self, token: str) -> Principal | None:
        if not token or len(token) > TOKEN_CHARACTERS_MAX:
            return None
        principal = await self._principal(token_digest(token))
        return principal if principal and principal.valid_at(self._now()) else None

    async def _principal(self, digest: str) -> Principal | None:
        believed = self._believed.get(digest)
        if believed is None or believed.until <= self._monotonic():
            # One at a time: two hundred screens ask at the same moment, and would take all connections.
            async with self._asking:
                believed = self._believed.get(digest)
                if believed is None or believed.until <= self._monotonic():
                    believed = await self._ask(digest)
        return believed.principal

    async def _ask(self, digest: str) -> _Believed:
        if self._failure and self._failed_until > self._monotonic():  # or each of them would wait for its own failure
            raise self._failure
        asked = self._monotonic()
        try:
            found = await self._principals.find(digest)
        except DamagedPrincipalsError:  # `devices list` says which; until it is mended it lets nobody in
            found = None
        except FieldtallyError as error:
            self._failure, self._failed_until = error, self._monotonic() + FAILED_S
            raise
        believed = self._believed[digest] = _Believed(found, asked + BELIEVED_S)
        self._believed.move_to_end(digest)
        while len(self._believed) > REMEMBERED_MAX:
            self._believed.popitem(last=False)
        return believed


def token_of(cookie: str, authorization: str) -> str:
    """Return the token that a request brings: in the cookie, or as a bearer, as programs have it."""
    scheme, _, bearer = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip()
    # By hand: the standard library's reader gives up at the first thing that it does not know, such as a cookie that
    # another program on this host has set.
    pairs = (part.strip().partition("=") for part in cookie.split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def cookie_for(token: str, *, secure: bool) -> str:
    """Return the Set-Cookie of a log-in; an empty token logs out."""
    age = COOKIE_S if token else 0
    return f"{COOKIE}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
