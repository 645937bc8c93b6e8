"""The one codec: bytes to event with every rule enforced, event to canonical bytes, and the content digest."""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import Final, NoReturn, get_args
from uuid import UUID

import msgspec

from schemas import events
from schemas.events import TYPE_PREFIX, Event, NilReport
from schemas.upcast import explain_unknown
from schemas.vocabulary import Coverage, Measure, ParkedReason, WithdrawalReason

DIGEST_BYTES: Final = 16

_ALLOWED: Final = {
    "specversion": "not one of the allowed values: 1.0",
    "citizenship": "not one of the allowed values: three capital letters of ISO 3166-1, XXA, XXB, XXC, XXX or RKS",
    **{
        name: f"not one of the allowed values: {', '.join(get_args(kind))}"
        for name, kind in (("coverage", Coverage), ("measure", Measure), ("reason", WithdrawalReason))
    },
}

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_KNOWN_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Event))
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<name>.*)`\Z", re.DOTALL)
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}\Z")
_TYPE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,80}\Z")
_KNOWN_FIELDS: Final = {
    name
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    for name in (*kind.__struct_encode_fields__, "type")
}
_POINTER: Final = re.compile(rf"\$(?:\.(?:{'|'.join(sorted(_KNOWN_FIELDS))})|\[[0-9]*\])*\Z")
RFC_3339_PATTERN: Final = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_RFC_3339: Final = re.compile(RFC_3339_PATTERN)
_USUAL_END: Final = re.compile(rb'"time":"....-..-..T..:..:..Z"}\Z')
_USUAL_END_BYTES: Final = len(b'"time":"2024-03-14T03:12:09Z"}')
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


class _PeriodSpelled(msgspec.Struct):
    period_from: str = ""
    period_to: str = ""


class _Spelled(msgspec.Struct):
    """The times of an event as they are written."""

    time: str
    data: _PeriodSpelled


_spelled_decoder: Final = msgspec.json.Decoder(_Spelled)
_identified_decoder: Final = msgspec.json.Decoder(_Identified)
_head_decoder: Final = msgspec.json.Decoder(_Head)


def decode(raw: bytes) -> Event:
    """Decode one event, or raise EventError naming its type, the field's path and the rule."""
    try:
        event = _decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _raise(raw, error)
    # msgspec reads more spellings of a time than RFC 3339 has. What ends as nearly every event in a log does is right,
    # and cheap to see; any other spelling is looked at.
    if not _USUAL_END.match(raw, len(raw) - _USUAL_END_BYTES) or isinstance(event, NilReport):
        _check_spelling(raw, event)
    return event


def decode_again(raw: bytes) -> Event:
    """Decode an event that `decode` has read before; EventError if this program reads it otherwise."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _raise(raw, error)


def refuse_repeated_members(raw: bytes) -> None:
    """Raise EventError if a JSON object in it has a member twice: one of the two would be lost without a word.

    For what is submitted; `decode` takes the last, since a look at every member costs more than all the rest.
    """

    def once(members: list[tuple[str, object]]) -> None:
        if len({name for name, _ in members}) < len(members):
            raise EventError("malformed", "", "$", "a member of an object stands there twice")

    json.loads(raw, object_pairs_hook=once)


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


def _check_spelling(raw: bytes, event: Event) -> None:
    """Refuse a time that is not written as RFC 3339 has it: other readers of the log would not take it."""
    spelled = _spelled_decoder.decode(raw)
    for pointer, text in (
        ("$.time", spelled.time),
        ("$.data.period_from", spelled.data.period_from if isinstance(event, NilReport) else ""),
        ("$.data.period_to", spelled.data.period_to if isinstance(event, NilReport) else ""),
    ):
        if text and not _RFC_3339.fullmatch(text):
            short = str(event.__struct_config__.tag).removeprefix(TYPE_PREFIX)
            raise EventError("malformed", short, pointer, "write a time as RFC 3339, such as 2024-03-14T04:12:09+01:00")


def _raise(raw: bytes, error: Exception) -> NoReturn:
    """Turn msgspec's message into type, path and rule.

    The message is untrusted: it may repeat a value, and the name of a field may look like its end. So a path is taken
    only if it is made of our own fields, a name only if it could be one.
    """
    try:
        type_name = _head_decoder.decode(raw).type
    except (msgspec.MsgspecError, ValueError, RecursionError):
        type_name = ""
    message, _, path = str(error).rpartition(" - at `") if " - at `" in str(error) else (str(error), "", "$")
    pointer = path.rstrip("`").replace("[...]", "[]")
    if not _POINTER.match(pointer):
        pointer = "$"
    known = type_name in _KNOWN_TYPES
    if message.startswith("Invalid value"):
        if type_name and not known and pointer == "$.type":
            named = type_name if _TYPE_NAME.match(type_name) else "(a type of unreadable name)"
            raise EventError("unknown-type", named, pointer, explain_unknown(type_name)) from error
        message = "not one of the known types"
    if message.startswith("Invalid enum value"):
        message = _ALLOWED.get(pointer.rpartition(".")[2], "not one of the allowed values")
    if isinstance(error, RecursionError):
        message = "nested too deeply"
    if message.startswith("Object contains unknown field"):
        unknown = _UNKNOWN_FIELD.match(message)
        field = unknown["name"] if unknown else ""
        message = f"unknown field `{field}`" if _FIELD_NAME.match(field) else "a field of unknown name"
    raise EventError("malformed", type_name.removeprefix(TYPE_PREFIX) if known else "", pointer, message) from error
