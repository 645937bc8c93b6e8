"""`devices enrol`, `list`, `rotate` and `revoke`: who may report and who may look, each by a token shown once."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Final, Literal
from urllib.parse import urlsplit

import click
import msgspec
import segno

from schemas.principals import ROLES, Principal, Role
from services.cli.command import Whole, command, group, run_async, settings
from services.cli.enrolment import (
    REPORTING,
    Named,
    Principals,
    Revoked,
    Rotated,
    enrol,
    read_named,
    revoke,
    rotate,
    sides_of,
    standing,
)
from services.cli.output import Format, format_option, many, note, print_records
from services.cli.server import server_url
from services.runtime.clock import now
from services.runtime.entropy import new_token, random_bytes
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.connection import check_server, connect
from services.store.principals import DamagedPrincipalsError, RedisPrincipals, token_digest

COLUMNS: Final = ("side", "unit", "device", "role", "state", "enrolled", "expires")
IN_FORCE_S: Final = 10
"""Within how many seconds every gateway refuses a revoked token."""

_DEVICE_BYTES: Final = 3
_OVERLAP: Final = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[mhd])|0")
_OVERLAP_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_OVERLAP_MAX: Final = timedelta(days=90)
_ADDRESS: Final = re.compile(r"(?i:https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?")

# The light parts of the code are drawn, the dark ones are the background: white on black, whatever the terminal has.
_ON_BLACK: Final = "\x1b[97;40m{}\x1b[0m"

PrintFormat = Literal["table", "json"]

_side_option = click.option(
    "--side", "sides", multiple=True, metavar="SIDE", help="The side, where the unit's name does not say it."
)
_address_option = click.option(
    "--address",
    metavar="http://HOST:PORT",
    help="Where devices reach the gateway.  [default: FIELDTALLY_HTTP_HOST and _PORT]",
)
_qr_option = click.option(
    "--qr/--no-qr", "qr", default=None, help="Print a QR code for a phone.  [default: on a terminal]"
)


@group("devices", "devices enrol SI-MP-07", "devices list", "devices revoke SI-MP-07/9f3c2a")
def devices() -> None:
    """Give units, desks and viewers their tokens.

    They are taken back here too. A token is shown once, when it is made; only its SHA-256 is stored.
    """


@command(
    "enrol",
    "devices enrol SI-MP-07",
    "devices enrol SI-MP-07/9f3c2a --address https://reports.example",
    "devices enrol SI-HQ --role desk --valid-for 30",
    "devices enrol wall --role viewer --side SI --side HR --format json",
)
@click.argument("unit", metavar="UNIT[/DEVICE]")
@click.option("--role", type=click.Choice(ROLES), default="unit", show_default=True, help="What the token is for.")
@click.option(
    "--side", "sides", multiple=True, metavar="SIDE",
    help="The side, where the unit's name does not begin with it; may be repeated for viewers and auditors.",
)  # fmt: skip
@click.option("--device", metavar="NAME", help="The name of its device.  [default: six random digits]")
@_address_option
@click.option("--valid-for", "days", type=Whole(1, 36_500), metavar="DAYS", help="When it ends.  [default: never]")
@format_option("table", "json")
@_qr_option
def enrol_device(
    unit: str,
    role: Role,
    sides: tuple[str, ...],
    device: str | None,
    address: str | None,
    days: int | None,
    output_format: PrintFormat,
    *,
    qr: bool | None,
) -> None:
    """Make a token for a device and print it, once.

    A unit reports and amends as itself, a desk (headquarters) for its side; viewers see tallies, auditors the log.
    """
    chosen = settings()
    if device == "":
        raise UsageError("--device '': leave it out to get a name")
    named = read_named(chosen, unit, sides, device or "")
    side = sides_of(chosen, named, role)
    printing = _Printing(chosen, address, output_format, qr=qr, reports=role in REPORTING)
    token = new_token()

    def new(moment: datetime) -> Principal:
        ends = moment + timedelta(days=days) if days else None
        return Principal(role=role, side=side, unit=named.unit, device=named.device, enrolled=moment, expires=ends)

    principal, known = run_async(_enrol(chosen, new, token))
    printing.token(token, principal, f"{principal.source} is enrolled as {role}")
    if known:
        note(
            f"{principal.source} had a token before. If this is another phone, enrol it under a name of its own: "
            "reports are numbered by device"
        )


@command("list", "devices list", "devices list --format json")
@format_option()
def list_devices(output_format: Format) -> None:
    """Print who has a token, and who had one.

    Of an active one that was rotated, the old token is `rotated`: taken until it expires.
    """
    chosen = settings()
    damage = None
    try:
        principals = run_async(_everyone(chosen))
    except DamagedPrincipalsError as error:
        principals, damage = error.sound, error
    moment = now()
    order = {side.side: number for number, side in enumerate(chosen.sides)}
    ordered = sorted(
        principals.values(),
        key=lambda one: ([order.get(side, len(order)) for side in one.sides], *one.source.split("/"), one.enrolled),
    )
    records = [_record(one, standing(one, principals, moment), output_format) for one in ordered]
    print_records(records, COLUMNS, output_format, "devices")
    if not records and not damage:
        note("nobody has a token yet: `fieldtally devices enrol UNIT` makes one, such as SI-MP-07 for UNIT")
    if damage:
        raise damage


@command(
    "rotate",
    "devices rotate SI-MP-07/9f3c2a",
    "devices rotate SI-MP-07/9f3c2a --overlap 7d",
    "devices rotate SI-MP-07 --overlap 0",
)
@click.argument("unit", metavar="UNIT[/DEVICE]")
@_side_option
@click.option(
    "--overlap", "overlap_text", metavar="TIME", default="24h", show_default=True,
    help="How long the old token is taken too, such as 30m, 24h or 7d; 0: not at all.",
)  # fmt: skip
@_address_option
@format_option("table", "json")
@_qr_option
def rotate_token(
    unit: str,
    sides: tuple[str, ...],
    overlap_text: str,
    address: str | None,
    output_format: PrintFormat,
    *,
    qr: bool | None,
) -> None:
    """Make a new token for a device, and let the old one end.

    The new one ends when the old one would have: to prolong it, let it end and enrol the device again.
    """
    chosen = settings()
    named = read_named(chosen, unit, sides)
    overlap = read_overlap(overlap_text)
    printing = _Printing(chosen, address, output_format, qr=qr)
    token = new_token()
    rotated = run_async(_rotate(chosen, named, token, overlap))
    old = f"the old one is taken until {_time(rotated.old_until)}" if overlap else _revoked("the old one is")
    printing.token(token, rotated.principal, f"{rotated.principal.source} has a new token; {old}")


@command("revoke", "devices revoke SI-MP-07/9f3c2a", "devices revoke SI-MP-07", "devices revoke wall --side SI")
@click.argument("unit", metavar="UNIT[/DEVICE]")
@_side_option
def revoke_tokens(unit: str, sides: tuple[str, ...]) -> None:
    """Revoke all tokens of a device, or of all devices of a unit.

    What it reported stays and counts. It stays in the list too: who could report is part of the answer for a figure.
    """
    chosen = settings()
    for device in run_async(_revoke(chosen, read_named(chosen, unit, sides))):
        if device.tokens:
            print(f"{device.source}: {_revoked(many(device.tokens, 'token'))}")
        else:
            print(f"{device.source}: was revoked before, nothing to do")


devices.add_command(enrol_device)
devices.add_command(list_devices)
devices.add_command(rotate_token)
devices.add_command(revoke_tokens)


def read_overlap(text: str) -> timedelta:
    """Read how long an old token is still taken; UsageError says how to write it."""
    found = _OVERLAP.fullmatch(text.strip())
    if not found:
        raise UsageError(f"--overlap {text!r}: a number with m, h or d, such as 30m, 24h or 7d; 0 for not at all")
    overlap = int(found["number"]) * _OVERLAP_UNITS[found["unit"]] if found["unit"] else timedelta(0)
    if overlap > _OVERLAP_MAX:
        raise UsageError(f"--overlap {text!r}: at most {_OVERLAP_MAX.days}d")
    return overlap


def read_address(chosen: Settings, text: str | None) -> str:
    """Return where devices reach the gateway, as scheme, host and port; UsageError says how to write it."""
    if text is None:
        host = f"[{chosen.http_host}]" if ":" in chosen.http_host else chosen.http_host
        return f"http://{host}:{chosen.http_port}"
    wrong = UsageError(f"--address {text!r}: write scheme, host and port only, such as http://192.168.1.10:8080")
    if not _ADDRESS.fullmatch(text):
        raise wrong
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise wrong from error
    if port == 0:
        raise wrong
    return f"{url.scheme}://{url.netloc}"


def enrolment_link(address: str, token: str, principal: Principal) -> str:
    """Return what a device joins by. Behind the `#`, since what stands there never reaches a server or its logs."""
    return f"{address}/#token={token}&source={principal.source}"


class _Printing:
    """How a new token is to be printed. It refuses wrong options before there is a token."""

    def __init__(
        self,
        chosen: Settings,
        address: str | None,
        output_format: PrintFormat,
        *,
        qr: bool | None,
        reports: bool = True,
    ) -> None:
        if qr and output_format == "json":
            raise UsageError("--qr is for people, --format json for programs: leave one of them out")
        if not reports and (qr or address):
            raise UsageError("--qr and --address are for units and desks: viewers and auditors send no reports")
        self._address = read_address(chosen, address)
        self._screen = chosen.screen_address
        self._format = output_format
        self._qr = qr

    def token(self, token: str, principal: Principal, done: str) -> None:
        link = enrolment_link(self._address, token, principal) if principal.role in REPORTING else None
        if self._format == "json":
            shown = {name: getattr(principal, name) for name in ("role", "side", "unit", "device")}
            more = {"link": link} if link else {"screen": self._screen}
            print(msgspec.json.encode({"token": token, **shown, **more, "expires": _time(principal.expires)}).decode())
        else:
            until = f", valid until {_time(principal.expires)}" if principal.expires else ""
            print(f"{done}.\n\nIts token{until}, shown this once; keep it as you keep a password:\n\n{token}\n")
            if not link:
                print(f"To look, log in with it on the screen at {self._screen}\n")
            else:
                print(f"To join on the device:\n\nfieldtally report --join '{link}'\n")
                self._print_qr(link)
        sys.stdout.flush()
        if link:
            _warn(self._address)

    def _print_qr(self, link: str) -> None:
        terminal = sys.stdout.isatty()
        if not (terminal if self._qr is None else self._qr):
            return
        lines = qr_lines(link)
        try:
            "".join(lines).encode(sys.stdout.encoding)
        except UnicodeEncodeError:
            note(f"no QR code: the output's encoding, {sys.stdout.encoding}, has no blocks to draw it with")
            return
        if terminal and shutil.get_terminal_size().columns < len(lines[0]):
            note(f"no QR code: it needs a terminal of {len(lines[0])} columns")
            return
        coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print("Or scan this with the phone:\n")
        for line in lines:
            print(_ON_BLACK.format(line) if coloured else line)


def qr_lines(link: str) -> list[str]:
    """Return a QR code as lines of half blocks, its quiet zone included."""
    drawn = StringIO()
    segno.make(link, micro=False).terminal(out=drawn, compact=True)
    return drawn.getvalue().splitlines()


def _warn(address: str) -> None:
    url = urlsplit(address)
    host = url.hostname or ""
    try:
        number = ipaddress.ip_address(host)
        local, unspecified = number.is_loopback, number.is_unspecified
    except ValueError:
        local, unspecified = host == "localhost" or host.endswith(".localhost"), False
    if local or unspecified:
        note(f"no phone can reach {address}: give the address that devices reach the gateway at, with --address")
    elif url.scheme == "http":
        note(f"{address} is not encrypted: the token and the reports would travel in the clear; better https://")


def _revoked(what: str) -> str:
    return f"{what} revoked, refused everywhere within {IN_FORCE_S} s"


def _record(principal: Principal, state: str, output_format: Format) -> dict[str, str]:
    expires = _time(principal.expires)
    if output_format == "table" and state == "rotated":
        state = f"rotated until {expires}"
    return {
        "side": principal.side,
        "unit": principal.unit,
        "device": principal.device,
        "role": principal.role,
        "state": state,
        "enrolled": _time(principal.enrolled),
        "expires": expires,
    }


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""


@asynccontextmanager
async def _principals(chosen: Settings) -> AsyncIterator[RedisPrincipals]:
    with server_url(chosen) as url:
        client = connect(url)
        try:
            await check_server(client, url)
            yield RedisPrincipals(client, url, chosen.prefix)
        finally:
            await client.aclose()


async def _everyone(chosen: Settings) -> dict[str, Principal]:
    async with _principals(chosen) as principals:
        return await principals.everyone()


# The clock is asked again whenever somebody else was first: what is decided then comes after what they did.


async def _enrol(chosen: Settings, new: Callable[[datetime], Principal], token: str) -> tuple[Principal, bool]:
    def decide(principals: Principals) -> tuple[Principals, tuple[Principal, bool]]:
        moment = now()
        return enrol(principals, new(moment), token_digest(token), moment, lambda: random_bytes(_DEVICE_BYTES).hex())

    async with _principals(chosen) as principals:
        return await principals.change(decide)


async def _rotate(chosen: Settings, named: Named, token: str, overlap: timedelta) -> Rotated:
    async with _principals(chosen) as principals:
        return await principals.change(lambda known: rotate(known, named, chosen, token_digest(token), now(), overlap))


async def _revoke(chosen: Settings, named: Named) -> list[Revoked]:
    async with _principals(chosen) as principals:
        return await principals.change(lambda known: revoke(known, named, chosen, now()))
