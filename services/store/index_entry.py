"""How an index entry is packed: 8 bytes for nearly every report, since there is one per report for ever.

Layout: 6 bytes of milliseconds, then the sequence and the revision as varints; the revision's varint carries the flag
"original missing" in its lowest bit and is left out when both are zero. Milliseconds that need more, as only a direct
write can have them, stand in 8 bytes of their own. The content digest is not stored: it would double the entry, and a
key that comes again needs the event itself anyway to take its counts out.
"""

from __future__ import annotations

from msgspec import Struct

from schemas.vocabulary import Position

_MS_BYTES = 6
_FAR = b"\xff" * _MS_BYTES
_FAR_FROM = int.from_bytes(_FAR, "big")
_FAR_BYTES = 8  # a stream takes any ID of 64 and 64 bits


class IndexEntry(Struct, frozen=True, gc=False):
    """What the index holds for a key: where the version in force stands, its revision, and what is awaited."""

    position: Position
    revision: int
    original_missing: bool


def pack(position: Position, revision: int, *, original_missing: bool) -> bytes:
    """Write an entry."""
    milliseconds, _, sequence = position.partition("-")
    at = int(milliseconds)
    packed = at.to_bytes(_MS_BYTES, "big") if at < _FAR_FROM else _FAR + at.to_bytes(_FAR_BYTES, "big")
    if sequence == "0" and not revision:
        return packed
    packed += _varint(int(sequence))
    if revision:
        packed += _varint(revision << 1 | original_missing)
    return packed


def unpack(packed: bytes) -> IndexEntry:
    """Read what `pack` wrote."""
    numbers: list[int] = []
    shift = number = 0
    start, end = (_MS_BYTES, _MS_BYTES + _FAR_BYTES) if packed.startswith(_FAR) else (0, _MS_BYTES)
    for byte in packed[end:]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            shift = number = 0
    sequence, flagged = (*numbers, 0, 0)[:2]
    milliseconds = int.from_bytes(packed[start:end], "big")
    return IndexEntry(Position(f"{milliseconds}-{sequence}"), flagged >> 1, bool(flagged & 1))


def _varint(number: int) -> bytes:
    if number < 0x80:
        return number.to_bytes(1, "big")
    packed = bytearray()
    while number >= 0x80:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)
