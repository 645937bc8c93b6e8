"""The principals on Redis: SHA-256 of a token to whom it stands for. The token itself is nowhere."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from schemas.principals import Principal
from services.store.connection import Client, translated
from services.store.keys import principals_key

_json: Final = msgspec.json.Encoder()
_principal: Final = msgspec.json.Decoder(Principal)


def token_digest(token: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal: what is stored of it. A token has 256 random bits, so no salt."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class RedisPrincipals:
    """All principals under a prefix."""

    def __init__(self, client: Client, url: str, prefix: str) -> None:
        self._client = client
        self._url = url
        self._key = principals_key(prefix)

    async def find(self, digest: str) -> Principal | None:
        """Return whom a token stands for, by its digest; whether it is still valid is for the caller to see."""
        with translated(self._url):
            row: Any = await self._client.hget(self._key, digest)
        return None if row is None else _principal.decode(row)

    async def everyone(self) -> dict[str, Principal]:
        """Return all principals by the digests of their tokens."""
        with translated(self._url):
            rows: Any = await self._client.hgetall(self._key)
        return {digest.decode(): _principal.decode(row) for digest, row in rows.items()}

    async def put(self, principals: dict[str, Principal]) -> None:
        """Store principals by the digests of their tokens, all at once; those there already are replaced."""
        rows: dict[Any, Any] = {digest: _json.encode(principal) for digest, principal in principals.items()}
        with translated(self._url):
            await self._client.hset(self._key, mapping=rows)
