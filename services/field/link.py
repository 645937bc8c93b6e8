"""The enrolment link that a QR code holds: where the gateway is, the token, and who reports."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from schemas.vocabulary import parse_source
from services.runtime.errors import UsageError

EXAMPLE: Final = "https://HOST/#token=TOKEN&source=/SI/SI-MP-07/9f3c2a"

_AROUND: Final = " \t\r\n<>()\"'`„“”‚‘’«»‹›.,;:!"  # what a mail or a shell leaves around a link, none of which ends one
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]*")


TOKEN_CHARACTERS: Final = 43
"""How long a token is: 256 bits in URL-safe Base64."""


class Enrolment(NamedTuple):
    """What a device needs to report: the gateway's address (no slash at its end), token, `/side/unit/device`."""

    address: str
    token: str
    source: str


def read_link(link: str) -> Enrolment:
    """Read an enrolment link; UsageError says what is wrong with it and never repeats the token."""
    link = link.strip(_AROUND)
    if len(link.split()) > 1:
        raise _wrong("there is a blank or a line break in it; give it in one piece, and no text around it")
    try:
        parts = urlsplit(link)
        parts.port  # noqa: B018  # raises on a port that is no number
        host = parts.hostname
    except ValueError as error:
        raise _wrong("its address cannot be read") from error
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong("it does not begin with http://HOST or https://HOST")
    if parts.username is not None or parts.query:
        raise _wrong("its address holds a user or a query")
    fields = parse_qs(parts.fragment.replace("+", "%2B"))
    token, source = (fields.get(name, []) for name in ("token", "source"))
    if len(token) != 1 or not _TOKEN.fullmatch(token[0]):
        raise _wrong("there is no token in it")
    if len(token[0]) != TOKEN_CHARACTERS:
        raise _wrong(
            f"its token has {len(token[0])} characters instead of {TOKEN_CHARACTERS}, so a part of the link is missing "
            "or too much; copy the whole link"
        )
    if len(source) != 1:
        raise _wrong("there is no source in it")
    try:
        parse_source(source[0])
    except ValueError as error:
        raise _wrong(str(error)) from error
    return Enrolment(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", token[0], source[0])


def _wrong(why: str) -> UsageError:
    return UsageError(f"this is no enrolment link: {why}; it looks like {EXAMPLE} and comes from `devices enrol`")
