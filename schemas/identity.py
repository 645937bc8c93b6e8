"""Identifiers that sort by time: UUID version 7 (RFC 9562, 5.7), from a time and random bits that are passed in."""

from __future__ import annotations

from typing import Final
from uuid import UUID

RANDOM_BITS: Final = 80

# 48 bits of milliseconds, 4 of version, 12 random, 2 of variant, 62 random.
_RANDOM: Final = 0xFFF << 64 | (1 << 62) - 1
_VERSION: Final = 7 << 76 | 2 << 62


def uuid7(unix_ms: int, random_bits: int) -> UUID:
    """Return the UUIDv7 of a time in milliseconds since 1970 and 80 random bits, of which 74 are used."""
    return UUID(int=unix_ms << 80 | random_bits & _RANDOM | _VERSION)
