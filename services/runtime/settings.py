"""The settings: read from the environment at one place into one frozen value that is passed on (DESIGN section 10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, cast, get_args
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from schemas.vocabulary import CITIZENSHIPS, Side
from services.runtime.errors import UsageError

ENV_PREFIX: Final = "FIELDTALLY_"
SCHEMES: Final = ("redis", "rediss", "unix")

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class SideSettings(Struct, frozen=True):
    """One side: its code, the zone of its local days, and the citizenship that is domestic there."""

    side: Side
    zone: ZoneInfo
    citizenship: str


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. Without `redis_url` an embedded Valkey serves, with its data in `data_dir`.

    `http_origins` are the web origins whose pages may use the gateway; `rate_limit` is in reports a second for a token,
    `lag_limit` in entries of a side's log that are not yet counted.
    """

    redis_url: str | None
    data_dir: Path
    sides: tuple[SideSettings, ...]
    prefix: str
    http_host: str
    http_port: int
    screen_port: int
    http_origins: tuple[str, ...]
    rate_limit: int
    lag_limit: int
    log_format: LogFormat
    log_level: LogLevel

    @property
    def archive_dir(self) -> Path:
        """The folder of the archives, one in it for each side."""
        return self.data_dir / "archive"

    @property
    def http_address(self) -> str:
        """The address of the gateway, as a browser takes it."""
        return self._address(self.http_port)

    @property
    def screen_address(self) -> str:
        """The address of the control-room screen, as a browser takes it."""
        return self._address(self.screen_port)

    def _address(self, port: int) -> str:
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return f"http://{host}:{port}"

    def side(self, name: str) -> SideSettings:
        """Return the settings of a side; UsageError names the configured ones."""
        for side in self.sides:
            if side.side == name:
                return side
        raise UsageError(f"no side {name!r}: {ENV_PREFIX}SIDES has {', '.join(side.side for side in self.sides)}")


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings; UsageError names the variable and what is allowed."""
    # An empty variable counts as unset: that is how a shell or a unit file says "leave it".
    value = {name: environ.get(ENV_PREFIX + name) or default for name, default in _DEFAULTS.items()}
    return Settings(
        redis_url=_redis_url(value["REDIS_URL"]) if value["REDIS_URL"] else None,
        data_dir=Path(value["DATA_DIR"]).expanduser() if value["DATA_DIR"] else _default_data_dir(environ),
        sides=_sides(value["SIDES"]),
        prefix=_prefix(value["PREFIX"]),
        http_host=value["HTTP_HOST"],
        http_port=_port("HTTP_PORT", value["HTTP_PORT"]),
        screen_port=_port("SCREEN_PORT", value["SCREEN_PORT"]),
        http_origins=_origins(value["HTTP_ORIGINS"]),
        rate_limit=_whole("RATE_LIMIT", value["RATE_LIMIT"]),
        lag_limit=_whole("LAG_LIMIT", value["LAG_LIMIT"]),
        log_format=cast("LogFormat", _choice("LOG_FORMAT", value["LOG_FORMAT"], get_args(LogFormat))),
        log_level=cast("LogLevel", _choice("LOG_LEVEL", value["LOG_LEVEL"], get_args(LogLevel))),
    )


def unknown_settings(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings and are none: most likely misspelt."""
    known = {ENV_PREFIX + name for name in _DEFAULTS}
    return sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)


def hide_password(url: str) -> str:
    """Return a URL fit for a message: what could be a password is starred, a query left out.

    A password may hold `@`, `/` or `?` that nobody escaped: all up to the last `@` counts as user and password.
    """
    scheme, separator, rest = url.partition("://")
    credentials, at, address = rest.rpartition("@")
    user = credentials.partition(":")[0].partition("?")[0]
    return f"{scheme}{separator}{user + ':***@' if at else ''}{address.partition('?')[0]}"


_DEFAULTS: Final = {
    "REDIS_URL": "",
    "DATA_DIR": "",
    "SIDES": "SI:Europe/Ljubljana:SVN,HR:Europe/Zagreb:HRV",
    "PREFIX": "ft",
    "HTTP_HOST": "127.0.0.1",
    "HTTP_PORT": "8080",
    "SCREEN_PORT": "8081",
    "HTTP_ORIGINS": "",
    "RATE_LIMIT": "200",
    "LAG_LIMIT": "10000",
    "LOG_FORMAT": "auto",
    "LOG_LEVEL": "info",
}


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share").expanduser()) / "fieldtally"


def _redis_url(text: str) -> str:
    wrong = UsageError(
        f"{ENV_PREFIX}REDIS_URL {hide_password(text)!r} is no address of a server: "
        "give redis://HOST:PORT/0, rediss://HOST:PORT/0 or unix:///PATH/TO/SOCKET"
    )
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  # raises on a port that is no number
    except ValueError as error:
        raise wrong from error
    if url.scheme not in SCHEMES or not (url.path if url.scheme == "unix" else url.hostname):
        raise wrong
    if url.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", url.path):
        raise wrong
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if not (name in ("username", "password") or name.startswith("ssl_") or (name == "db" and value.isdecimal())):
            raise UsageError(
                f"{ENV_PREFIX}REDIS_URL {hide_password(text)!r}: after `?` come db, username, password or ssl_… only"
            )
    return text


def _sides(text: str) -> tuple[SideSettings, ...]:
    def wrong(part: str, why: str) -> UsageError:
        return UsageError(
            f"{ENV_PREFIX}SIDES {part!r}: {why}; write CODE:ZONE:CITIZENSHIP, such as SI:Europe/Ljubljana:SVN"
        )

    sides: list[SideSettings] = []
    for part in text.split(","):
        if not part.strip():
            raise wrong(text, "there is a comma too many")
        fields = part.strip().split(":")
        if len(fields) != 3:
            raise wrong(part, "not three parts")
        code, zone_name, citizenship = fields
        if not re.fullmatch(r"[A-Z]{2}", code):
            raise wrong(part, f"{code!r} is not a country's two capital letters")
        if citizenship not in CITIZENSHIPS:
            raise wrong(part, f"{citizenship!r} is not a citizenship's three letters")
        if any(side.side == code for side in sides):
            raise wrong(part, f"{code} stands there twice")
        try:
            zone = ZoneInfo(zone_name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise wrong(part, f"{zone_name!r} is no IANA time zone") from error
        sides.append(SideSettings(Side(code), zone, citizenship))
    return tuple(sides)


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", text):
        raise UsageError(f"{ENV_PREFIX}PREFIX {text!r}: 1 to 32 characters of A-Z a-z 0-9 _ . -")
    return text


def _port(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise UsageError(f"{ENV_PREFIX}{name} {text!r}: a number from 1 to 65535")
    return int(text)


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", origin):
            raise UsageError(
                f"{ENV_PREFIX}HTTP_ORIGINS {origin!r}: write scheme and host without a path, as in https://app.example"
            )
    return origins


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 10**9:
        raise UsageError(f"{ENV_PREFIX}{name} {text!r}: a whole number from 1 to 1,000,000,000")
    return int(text)


def _choice(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text.lower() not in allowed:
        raise UsageError(f"{ENV_PREFIX}{name} {text!r}: one of {', '.join(allowed)}")
    return text.lower()
