"""What enrolling, rotating and revoking do to the principals: pure rules, with the moment and new digests passed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Final, Literal, NamedTuple

from msgspec.structs import replace

from schemas.principals import Principal, Role
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.principals import NAME_RULE, is_part

Principals = Mapping[str, Principal]
"""By the digests of their tokens."""

Standing = Literal["active", "rotated", "expired", "revoked"]
"""What a token is good for: active and rotated ones are taken, a rotated one until it expires."""

REPORTING: Final[tuple[Role, ...]] = ("unit", "desk")

# A token as `enrol` prints it, or its SHA-256. Hardly a unit that people name looks like this.
_TOKEN: Final = re.compile(r"(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9_-]{43}|[0-9a-f]{64}")

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Named(NamedTuple):
    """Whom a person named: a unit, perhaps its device (else ""), perhaps its sides (else none)."""

    sides: tuple[str, ...]
    unit: str
    device: str

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{self.unit}/{self.device}" if self.device else self.unit


class Rotated(NamedTuple):
    """The principal of the new token, and when the last of the old ones ends."""

    principal: Principal
    old_until: datetime


class Revoked(NamedTuple):
    """A device, as `/side/unit/device`, and how many of its tokens were not revoked before."""

    source: str
    tokens: int


# --- what was typed ---


def read_named(settings: Settings, text: str, sides: Sequence[str], device: str = "") -> Named:
    """Read UNIT, UNIT/DEVICE or /SIDE/UNIT/DEVICE, with the options --side and --device beside it.

    Raises:
        UsageError: it is none of these, or the options say something else.

    """
    configured = {side.side for side in settings.sides}
    looks_like_token = _TOKEN.fullmatch(text.strip()) and text.strip().partition("-")[0] not in configured
    if looks_like_token or "#token=" in text:  # not repeated: what is said ends up in terminals and logs
        raise UsageError(
            "that is a token, and here stands whose it is: UNIT or UNIT/DEVICE, as `fieldtally devices list` shows them"
        )
    parts = text.strip().removeprefix("/").split("/")
    in_path: tuple[str, ...] = ()
    if len(parts) > 1 and (text.strip().startswith("/") or len(parts) == 3 or parts[0] in configured):
        in_path = tuple(parts.pop(0).split(","))
    unit, device_in_path = (*parts, "", "")[:2]
    if len(parts) > 2 or (len(parts) == 2 and not device_in_path):
        raise UsageError(f"{text!r}: write UNIT, UNIT/DEVICE or /SIDE/UNIT/DEVICE, such as SI-MP-07/9f3c2a")
    named = tuple(dict.fromkeys(part.strip() for side in sides for part in side.split(",")))
    if in_path and named and set(in_path) != set(named):
        raise UsageError(f"{text!r} names side {','.join(in_path)}, --side says {','.join(named)}: which is it?")
    if device and device_in_path and device != device_in_path:
        raise UsageError(f"{text!r} names device {device_in_path}, --device says {device}: which is it?")
    found = Named(in_path or named, unit, device or device_in_path)
    for what, name in (("unit", found.unit), ("device", found.device)):
        if not is_part(name) and (name or what == "unit"):
            raise UsageError(f"{what} {name!r}: the name of a {what} {NAME_RULE}")
    if found.unit.upper() in configured:
        raise UsageError(f"unit {found.unit!r}: that is a side; name the unit, such as {found.unit.upper()}-MP-07")
    return found


def sides_of(settings: Settings, named: Named, role: Role) -> str:
    """Return the side of somebody to be enrolled; several of a viewer or auditor are separated by commas.

    Raises:
        UsageError: there is no such side, none to be seen, one too many, or another than the unit's name says.

    """
    configured = [side.side for side in settings.sides]
    prefix, dash, _ = named.unit.partition("-")
    if dash and prefix not in configured and prefix.upper() in configured:
        raise UsageError(
            f"unit {named.unit!r}: do you mean {named.unit.upper()!r}? Capitals and others are not the same"
        )
    for side in named.sides:
        _require_side(settings, side)
    if not named.sides:
        if dash and prefix not in configured and re.fullmatch(r"[A-Z]{2}", prefix):
            raise UsageError(
                f"{role} {named.unit!r}: {prefix} is no side in FIELDTALLY_SIDES; add it there, or if it is none, "
                f"say it with --side, one of {', '.join(configured)}"
            )
        if not dash or prefix not in configured:
            raise UsageError(
                f"{role} {named.unit!r}: its side cannot be seen from its name; say it with --side, one of "
                f"{', '.join(configured)}{'' if role in REPORTING else ', or several, each with --side'}"
            )
        return prefix
    if role in REPORTING:
        if len(named.sides) > 1:
            raise UsageError(f"--side: a {role} reports for one side; several are for viewers and auditors")
        if dash and prefix in configured and prefix != named.sides[0]:
            raise UsageError(f"unit {named.unit!r} is of side {prefix} by its name, --side says {named.sides[0]}")
    return ",".join(side for side in configured if side in named.sides)


def _require_side(settings: Settings, side: str) -> None:
    if side != side.upper() and any(side.upper() == one.side for one in settings.sides):
        raise UsageError(f"no side {side!r}: do you mean {side.upper()!r}?")
    settings.side(side)


# --- what becomes of the principals ---


def standing(principal: Principal, principals: Principals, moment: datetime) -> Standing:
    """Return what a principal's token is good for at a moment; only one of a device's is active."""
    if principal.state == "revoked":
        return "revoked"
    if not principal.valid_at(moment):
        return "expired"
    newest = max(_same(principal, principals.values()), key=_age)
    return "rotated" if principal.expires and _age(principal) < _age(newest) else "active"


def enrol(
    principals: Principals, new: Principal, digest: str, moment: datetime, draw_device: Callable[[], str]
) -> tuple[Principals, tuple[Principal, bool]]:
    """Add a principal; without a device it gets one that its unit never had. Tell also if the device was known before.

    Raises:
        UsageError: its token is valid, or it differs from another one only in capitals.

    """
    of_unit = [one for one in principals.values() if _overlap(one, new) and one.unit.lower() == new.unit.lower()]
    for one in of_unit:
        if one.unit != new.unit:
            raise UsageError(f"unit {new.unit!r} is enrolled already as {one.unit!r}: write it like that")
        if one.device != new.device and one.device.lower() == new.device.lower():
            raise UsageError(
                f"device {new.device!r} of {new.unit} is enrolled already as {one.device!r}: write it like that"
            )
        if one.device == new.device and one.valid_at(moment):
            raise UsageError(
                f"{one.source} is enrolled as {one.role} and its token is valid: "
                f"`fieldtally devices rotate {one.unit}/{one.device}` gives it a new one"
            )
    taken = {one.device.lower() for one in of_unit}
    known = new.device.lower() in taken
    while not new.device:
        device = draw_device()
        new = new if device.lower() in taken else replace(new, device=device)
    return {digest: new}, (new, known)


def rotate(
    principals: Principals, named: Named, settings: Settings, digest: str, moment: datetime, overlap: timedelta
) -> tuple[Principals, Rotated]:
    """Add a token for a principal; its others end after the overlap, or before if they would have.

    The new one ends when the one before would have: a rotation prolongs nothing.

    Raises:
        UsageError: nobody, or more than one, is meant; or no token of it is valid.

    """
    found = _meant(principals, named, settings)
    valid = {digest: one for digest, one in found.items() if one.valid_at(moment)}
    sources = sorted({one.source for one in valid.values()})
    if not valid:
        last = max(found.values(), key=_age)
        again = last.source if last.role == "unit" else f"{last.source} --role {last.role}"
        raise UsageError(f"no token of {named} is valid any more: `fieldtally devices enrol {again}` gives it one")
    if len(sources) > 1:
        raise UsageError(f"{named} has several devices: say which, {' or '.join(sources)}")
    newest = max(valid.values(), key=_age)
    changed = {old: _ended(one, moment + overlap, now=not overlap) for old, one in valid.items()}
    new = replace(newest, enrolled=max(moment, newest.enrolled))  # the newest, also where two machines' clocks differ
    return changed | {digest: new}, Rotated(new, max(one.expires or moment for one in changed.values()))


def revoke(
    principals: Principals, named: Named, settings: Settings, moment: datetime
) -> tuple[Principals, list[Revoked]]:
    """Revoke all tokens of a device, or of all devices of a unit; the rows stay, with when they ended.

    Raises:
        UsageError: nobody is meant, or it is not clear of which side.

    """
    found = _meant(principals, named, settings)
    changed = {digest: _ended(one, moment, now=True) for digest, one in found.items() if one.state != "revoked"}
    tokens = dict.fromkeys(sorted({one.source for one in found.values()}), 0)
    for one in changed.values():
        tokens[one.source] += 1
    return changed, [Revoked(source, count) for source, count in tokens.items()]


def _ended(principal: Principal, end: datetime, *, now: bool) -> Principal:
    # What ends now is revoked too: then no gateway's clock has a say in it.
    expires = min(end, principal.expires or _NEVER)
    return replace(principal, expires=expires, state="revoked" if now else principal.state)


def _meant(principals: Principals, named: Named, settings: Settings) -> Principals:
    """Return the principals whom a person named, whatever has become of their tokens; at least one, of one side."""
    known = {side for one in principals.values() for side in one.sides}
    for side in named.sides:
        if side not in known:
            _require_side(settings, side)
    of_side = {digest: one for digest, one in principals.items() if set(named.sides) <= set(one.sides)}
    of_unit = _spelt(of_side, named.unit, lambda one: one.unit)
    found = _spelt(of_unit, named.device, lambda one: one.device) if named.device else of_unit
    if not of_unit:
        raise UsageError(_nobody(principals, named))
    if not found:
        there = ", ".join(sorted({one.device for one in of_unit.values()}))
        raise UsageError(f"{named.unit} has no device {named.device!r}; it has {there}")
    exact = {digest: one for digest, one in found.items() if set(named.sides) == set(one.sides)}
    sides = sorted({one.side for one in found.values()})
    if len(sides) > 1 and not exact:
        raise UsageError(f"{named} is enrolled for {' and for '.join(sides)}: say with --side which you mean")
    return exact or found


def _nobody(principals: Principals, named: Named) -> str:
    """Say that no such unit is enrolled, and what was perhaps meant."""
    where = f" for side {','.join(named.sides)}" if named.sides else ""
    said = f"no unit {named.unit!r} is enrolled{where}: "
    listed = "`fieldtally devices list` shows those that are"
    if not principals:
        return said + "nobody is yet; `fieldtally devices enrol UNIT` does it"
    if elsewhere := sorted({one.side for one in _spelt(principals, named.unit, lambda one: one.unit).values()}):
        return said + f"it is for {' and for '.join(elsewhere)}; {listed}"
    if devices := _spelt(principals, named.unit, lambda one: one.device):
        meant = " or ".join(repr(name) for name in sorted({f"{one.unit}/{one.device}" for one in devices.values()}))
        return said + f"that is a device, do you mean {meant}? {listed}"
    like = get_close_matches(named.unit, {one.unit for one in principals.values()}, n=1)
    return said + (f"do you mean {like[0]!r}? " if like else "") + listed


def _spelt(principals: Principals, name: str, part: Callable[[Principal], str]) -> Principals:
    """Return those with a part of that name; if there are none, those where it differs only in capitals."""
    found = {digest: one for digest, one in principals.items() if part(one) == name}
    return found or {digest: one for digest, one in principals.items() if part(one).lower() == name.lower()}


def _same(principal: Principal, among: Iterable[Principal]) -> list[Principal]:
    """Return the principals of one device whose tokens are not revoked."""
    return [one for one in among if one.source == principal.source and one.state != "revoked"]


def _overlap(one: Principal, other: Principal) -> bool:
    return not set(one.sides).isdisjoint(other.sides)


def _age(principal: Principal) -> tuple[datetime, datetime]:
    """What tells a newer token from an older one, also where both were made in the same moment."""
    return principal.enrolled, principal.expires or _NEVER
