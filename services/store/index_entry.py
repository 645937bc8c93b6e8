"""How an index entry is packed: 8 bytes for nearly every report, since there is one per report for ever.

Layout: 6 bytes of milliseconds, then the sequence and the revision as varints; the revision's varint carries the flag
"original missing" in its lowest bit and is left out when both are zero. Of an amended report the original's position
follows, if it has come: whoever sends it once more is told where it stands. Milliseconds that need more, as only a
direct write can have them, stand in 8 bytes of their own. The content digest is not stored: it would double the
entry, and a key that comes again needs the event itself anyway to take its counts out.
"""

from __future__ import annotations

from msgspec import Struct

from schemas.vocabulary import Position
from services.tally.fold import Amendment, Version

_MS_BYTES = 6
_FAR = b"\xff" * _MS_BYTES
_FAR_FROM = int.from_bytes(_FAR, "big")
_FAR_BYTES = 8  # a stream takes any ID of 64 and 64 bits


class IndexEntry(Struct, frozen=True, gc=False):
    """What the index holds for a key: where the version in force stands, its revision, and what is awaited.

    `original` is where revision 0 stands, if the version in force is another and it has come.
    """

    position: Position
    revision: int
    original_missing: bool
    original: Position | None = None


def pack(position: Position, revision: int, *, original_missing: bool, original: Position | None = None) -> bytes:
    """Write an entry."""
    milliseconds, _, sequence = position.partition("-")
    packed = _milliseconds(int(milliseconds))
    if sequence == "0" and not revision:
        return packed
    packed += _varint(int(sequence))
    if revision:
        packed += _varint(revision << 1 | original_missing)
        if original:
            packed += _position(original)
    return packed


def pack_version(version: Version) -> bytes:
    """Write the entry of a version in force."""
    return pack(
        version.position,
        version.event.revision,
        original_missing=version.original_missing,
        original=version.original,
    )


def pack_amendment(amendment: Amendment) -> bytes:
    """Write where an amendment stands: its position and, if it replaced something, that one's."""
    return _position(amendment.position) + (_position(amendment.replaced) if amendment.replaced else b"")


def unpack_amendment(packed: bytes) -> Amendment:
    """Read what `pack_amendment` wrote."""
    position, at = _read_position(packed, 0)
    return Amendment(position, _read_position(packed, at)[0] if at < len(packed) else None)


def unpack(packed: bytes) -> IndexEntry:
    """Read what `pack` wrote."""
    position, at = _read_position(packed, 0)
    flagged, at = _read_varint(packed, at)
    original = _read_position(packed, at)[0] if at < len(packed) else None
    return IndexEntry(position, flagged >> 1, bool(flagged & 1), original)


def _position(position: Position) -> bytes:
    milliseconds, _, sequence = position.partition("-")
    return _milliseconds(int(milliseconds)) + _varint(int(sequence))


def _read_position(packed: bytes, at: int) -> tuple[Position, int]:
    milliseconds, at = _read_milliseconds(packed, at)
    sequence, at = _read_varint(packed, at)
    return Position(f"{milliseconds}-{sequence}"), at


def _milliseconds(at: int) -> bytes:
    return at.to_bytes(_MS_BYTES, "big") if at < _FAR_FROM else _FAR + at.to_bytes(_FAR_BYTES, "big")


def _read_milliseconds(packed: bytes, at: int) -> tuple[int, int]:
    if packed.startswith(_FAR, at):
        return int.from_bytes(packed[at + _MS_BYTES : at + _MS_BYTES + _FAR_BYTES], "big"), at + _MS_BYTES + _FAR_BYTES
    return int.from_bytes(packed[at : at + _MS_BYTES], "big"), at + _MS_BYTES


def _read_varint(packed: bytes, at: int) -> tuple[int, int]:
    """Return the number and where it ends; what is left out at the end is 0."""
    shift = number = 0
    while at < len(packed):
        byte = packed[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return number, at


def _varint(number: int) -> bytes:
    if number < 0x80:
        return number.to_bytes(1, "big")
    packed = bytearray()
    while number >= 0x80:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)
