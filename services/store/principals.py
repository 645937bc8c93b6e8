"""The principals on Redis: SHA-256 of a token to whom it stands for. The token itself is nowhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from redis.exceptions import WatchError

from schemas.principals import Principal
from services.runtime.errors import FieldtallyError
from services.runtime.settings import hide_password
from services.store.connection import Client, translated
from services.store.keys import principals_key

NAME_RULE: Final = "has 1 to 64 characters of A-Z a-z 0-9 -"
"""For unit and device, as in an event's `source`."""

Outcome = TypeVar("Outcome")

_json: Final = msgspec.json.Encoder()
_principal: Final = msgspec.json.Decoder(Principal)
_digest: Final = re.compile(r"[0-9a-f]{64}")
_name: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_one_side: Final = re.compile(r"[A-Z]{2}")
_sides: Final = re.compile(r"[A-Z]{2}(,[A-Z]{2})*")


def token_digest(token: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal: what is stored of it. A token has 256 random bits, so no salt."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def is_part(text: str) -> bool:
    """Tell whether this may name a unit or a device."""
    return _name.fullmatch(text) is not None


class DamagedPrincipalsError(FieldtallyError):
    """Some rows are not what Fieldtally wrote. They let nobody in; a person deletes them.

    `sound` are the others by the digests of their tokens.
    """

    exit_code = 4

    def __init__(self, text: str, sound: dict[str, Principal]) -> None:
        super().__init__(text)
        self.sound = sound


class RedisPrincipals:
    """All principals under a prefix. Rows are never deleted: they say who could report, and until when."""

    def __init__(self, client: Client, url: str, prefix: str) -> None:
        self._client = client
        self._url = url
        self._key = principals_key(prefix)

    async def find(self, digest: str) -> Principal | None:
        """Return whom a token stands for, by its digest; whether it is still valid is for the caller to see.

        Raises:
            DamagedPrincipalsError: the row is none that Fieldtally wrote. The token is not to be taken.

        """
        with translated(self._url):
            row: Any = await self._client.hget(self._key, digest)
        if row is None:
            return None
        found = self._read({digest.encode(): row})
        self._require_sound(found)
        return found.sound[digest]

    async def everyone(self) -> dict[str, Principal]:
        """Return all principals by the digests of their tokens.

        Raises:
            DamagedPrincipalsError: there are rows that Fieldtally never wrote; it holds the others.

        """
        with translated(self._url):
            rows: Any = await self._client.hgetall(self._key)
        found = self._read(rows)
        self._require_sound(found)
        return found.sound

    async def change(
        self, decide: Callable[[Mapping[str, Principal]], tuple[Mapping[str, Principal], Outcome]]
    ) -> Outcome:
        """Store what `decide` makes of all principals, if meanwhile nobody has stored anything; else ask it again.

        `decide` gets all principals by the digests of their tokens and returns those to store and what the caller
        wants to know; whatever it raises leaves everything as it was. Damaged rows are not shown to it: they let nobody
        in, and must not be in the way of a revocation.
        """
        with translated(self._url):
            async with self._client.pipeline(transaction=True) as pipe:
                while True:
                    await pipe.watch(self._key)
                    rows: Any = await pipe.hgetall(self._key)
                    changed, outcome = decide(self._read(rows).sound)
                    if not changed:
                        return outcome
                    pipe.multi()  # type: ignore[no-untyped-call]
                    pipe.hset(self._key, mapping=_rows(changed))
                    try:
                        await pipe.execute()
                    except WatchError:  # somebody else has stored something, so this loop ends
                        continue
                    return outcome

    def _read(self, rows: Mapping[bytes, bytes]) -> _Rows:
        sound, damaged = {}, []
        for field, row in rows.items():
            digest = field.decode(errors="replace")
            try:
                principal = _principal.decode(row)
            except (ValueError, msgspec.MsgspecError):
                damaged.append(digest)
            else:
                if _digest.fullmatch(digest) and not _wrong(principal):
                    sound[digest] = principal
                else:
                    damaged.append(digest)
        return _Rows(sound, sorted(damaged))

    def _require_sound(self, found: _Rows) -> None:
        if found.damaged:
            first, *others = found.damaged
            shown = ascii(first[: hashlib.sha256().digest_size * 2])
            raise DamagedPrincipalsError(
                f"{self._key} on {hide_password(self._url)} holds in its field {shown} "
                f"{f'and {len(others)} more ' if others else ''}what Fieldtally never wrote: it lets nobody in; delete "
                "it with HDEL, then enrol that device again",
                found.sound,
            )


class _Rows(NamedTuple):
    """The rows that could be read, and the fields of those that could not."""

    sound: dict[str, Principal]
    damaged: list[str]


def _rows(principals: Mapping[str, Principal]) -> dict[Any, Any]:
    for principal in principals.values():
        if wrong := _wrong(principal):
            raise ValueError(wrong)
    return {digest: _json.encode(principal) for digest, principal in principals.items()}


def _wrong(principal: Principal) -> str:
    """Say what is wrong with a principal of the right shape, or nothing."""
    reports = principal.role in ("unit", "desk")
    if not (_one_side if reports else _sides).fullmatch(principal.side):
        return f"a {principal.role} with side {principal.side!r}"
    if not is_part(principal.unit) or not is_part(principal.device):
        return f"unit and device: each {NAME_RULE}"
    if principal.enrolled.tzinfo is None or (principal.expires and principal.expires.tzinfo is None):
        return "a time without an offset"  # it could not be compared with the clock
    return ""
