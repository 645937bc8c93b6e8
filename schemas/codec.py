"""The one codec: bytes to event with every rule enforced, event to canonical bytes, and the content digest."""

from __future__ import annotations

import re
from datetime import UTC
from hashlib import blake2b
from typing import Final, NoReturn, get_args
from uuid import UUID

import msgspec

from schemas.events import TYPE_PREFIX, Event
from schemas.upcast import explain_unknown
from schemas.vocabulary import ParkedReason

DIGEST_BYTES: Final = 16

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_KNOWN_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Event))
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<name>.*)`\Z", re.DOTALL)
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}\Z")
_BARE_OFFSET: Final = re.compile(rb'T[0-9:.]+[+-][0-9]{4}"')  # +0100: msgspec takes it, RFC 3339 does not
_IDENTITY: Final = ("id", "source", "reportno")  # who sent it and how often does not change what it says


class EventError(ValueError):
    """Bytes that are no event. `reason` says how they are parked, `pointer` is the field's path, `rule` what it breaks.

    Its text repeats no value of the event. A publisher corrects the field and sends the report again.
    """

    def __init__(self, reason: ParkedReason, type_name: str, pointer: str, rule: str) -> None:
        super().__init__(f"{type_name} at {pointer}: {rule}" if type_name else f"at {pointer}: {rule}")
        self.reason = reason
        self.type_name = type_name
        self.pointer = pointer
        self.rule = rule


class _Head(msgspec.Struct):
    type: str = ""


class _Identified(msgspec.Struct):
    id: UUID


_identified_decoder: Final = msgspec.json.Decoder(_Identified)
_head_decoder: Final = msgspec.json.Decoder(_Head)


def decode(raw: bytes) -> Event:
    """Decode one event, or raise EventError naming its type, the field's path and the rule."""
    try:
        event = _decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _raise(raw, error)
    if (event.time.tzinfo is not UTC or b"+" in raw) and _BARE_OFFSET.search(raw):
        raise EventError("malformed", _short(event), "$", "an offset is written with a colon, such as +01:00")
    return event


def encode(event: Event) -> bytes:
    """Encode canonically: the bytes that the log holds."""
    return _encoder.encode(event)


def content_digest(event: Event) -> bytes:
    """Digest what a report says, apart from who sent it and under which number: BLAKE2b-128 (DESIGN section 2)."""
    content = {field: value for field, value in msgspec.json.decode(encode(event)).items() if field not in _IDENTITY}
    return blake2b(_encoder.encode(content), digest_size=DIGEST_BYTES).digest()


def readable_id(raw: bytes) -> str:
    """Return the id of bytes that may be no event, or the empty string."""
    try:
        return str(_identified_decoder.decode(raw).id)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def _raise(raw: bytes, error: Exception) -> NoReturn:
    """Turn msgspec's message into type, path and rule, without the values that some of its messages repeat."""
    try:
        type_name = _head_decoder.decode(raw).type
    except (msgspec.MsgspecError, ValueError, RecursionError):
        type_name = ""
    message, _, path = str(error).partition(" - at `")
    pointer = path.rstrip("`").replace("[...]", "[]") or "$"
    if type_name and type_name not in _KNOWN_TYPES and message.startswith("Invalid value") and pointer == "$.type":
        raise EventError("unknown-type", _printable(type_name), pointer, explain_unknown(type_name)) from error
    if message.startswith("Invalid enum value"):
        message = "not one of the allowed values"
    if unknown := _UNKNOWN_FIELD.match(message):
        # Whatever stands in place of a field's name is untrusted: it is repeated only if it could be one.
        field = unknown["name"]
        message = f"unknown field `{field}`" if _FIELD_NAME.match(field) else "a field of unknown name"
    short = type_name.removeprefix(TYPE_PREFIX) if type_name.startswith(TYPE_PREFIX) else ""
    raise EventError("malformed", _printable(short), pointer, message) from error


def _short(event: Event) -> str:
    return str(event.__struct_config__.tag).removeprefix(TYPE_PREFIX)


def _printable(name: str) -> str:
    return name if len(name) <= 80 and name.isascii() and name.isprintable() else "(unprintable type)"
