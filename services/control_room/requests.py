"""What a request asks of the control room: which view, in which language, and whether it may be asked so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, cast, get_args
from urllib.parse import parse_qs

from litestar import Request

from schemas.http import Problem, problem
from services.control_room.page import THEMES, View
from services.control_room.words import Language

HttpRequest = Request[Any, Any, Any]


class RefusedError(Exception):
    """A request that is refused."""

    def __init__(self, refused: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refused.code)
        self.problem = refused
        self.headers = dict(headers or {})


def from_here(headers: Mapping[str, str]) -> None:
    """Refuse a form that another site sends: SameSite keeps its cookie from us, and not ours from being set.

    A proxy may have changed `Host`, so the browser's own word counts where there is one, which is behind TLS. Our pages
    send no referrer, and with that an `Origin` of null.
    """
    site, origin = headers.get("sec-fetch-site", ""), headers.get("origin", "null")
    here = site in ("same-origin", "none") if site else origin in ("null", *_origins(headers.get("host", "")))
    if not here:
        raise RefusedError(problem("not-allowed", 403, "another site has sent this form; log in at /"))


def _origins(host: str) -> tuple[str, str]:
    return f"http://{host}", f"https://{host}"


def viewed(request: HttpRequest) -> tuple[Language, View]:
    """Return the language and the view that the address of the page says."""
    query = {name: values[0] for name, values in queries_of(request).items()}
    view = View(
        operation=query.get("operation", ""),
        side=query.get("side", ""),
        first=query.get("from", ""),
        last=query.get("to", ""),
        theme=query.get("theme", "auto") if query.get("theme") in THEMES else "auto",
        kiosk=query.get("kiosk") == "1",
        at=query.get("at", ""),
    )
    return language_of(query, request.headers.get("accept-language", "")), view


def takes_zipped(request: HttpRequest) -> bool:
    """Return whether the answer may be compressed."""
    return "gzip" in request.headers.get("accept-encoding", "")


def queries_of(request: HttpRequest) -> dict[str, list[str]]:
    """Return everything that stands behind the question mark, also what stands there twice or is empty."""
    return parse_qs(request.url.query, keep_blank_values=True)


def once_each(request: HttpRequest) -> dict[str, str]:
    """Return what a request asks for; one that asks twice for the same thing in two ways means neither."""
    queries = queries_of(request)
    for name, values in queries.items():
        if len(values) > 1:
            raise RefusedError(problem("malformed-request", 400, "a parameter may be given once", pointer=name[:64]))
    return {name: values[0] for name, values in queries.items()}


def queried_in(address: str) -> dict[str, str]:
    """Return what stands behind the question mark of an address that is not this request's."""
    return {name: values[0] for name, values in parse_qs(address.partition("?")[2]).items()}


def language_of(query: Mapping[str, str], accepted: str) -> Language:
    """Return the language that the address says, else the first one that the browser asks for and there is."""
    wanted = [
        query.get("lang", ""),
        *(part.partition(";")[0].strip().partition("-")[0] for part in accepted.split(",")),
    ]
    return next((cast("Language", one) for one in wanted if one in get_args(Language)), "en")


def day_of(query: Mapping[str, str], name: str) -> date | None:
    """Return the day that a parameter names, None if it is not given; RefusedError if it is no day."""
    text = query.get(name, "")
    try:
        day = date.fromisoformat(text) if text else None
        if day is None or day.isoformat() == text:  # other ways to write one are not what the page takes
            return day
    except ValueError:
        pass
    raise RefusedError(problem("malformed-request", 400, f"`{name}` is a date such as 2024-03-14", pointer=name))
