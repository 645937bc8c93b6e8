"""The control room's HTTP (DESIGN section 8): the page, the log-in, the snapshot, the stream, exports."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, cast
from urllib.parse import parse_qs, quote

import msgspec
from litestar import HttpMethod, Litestar, Response, asgi, post, route
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler, HTTPScope, Receive, Scope, Send
from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from schemas.http import PROBLEM_TYPE, Check, Code, Liveness, Problem, Readiness, problem
from schemas.screen import HEARTBEAT_S, HeartbeatMessage, ResetReason, Snapshot, Trouble
from schemas.vocabulary import Side
from services.control_room.assets import load_assets
from services.control_room.book import joined_digest
from services.control_room.export import Export, Filters, as_csv, export, name_of
from services.control_room.page import FIRST_DAY, LAST_DAY, login_page, page, trouble_page
from services.control_room.past import Past, lies_ahead, read_at
from services.control_room.requests import (
    HttpRequest,
    RefusedError,
    day_of,
    from_here,
    language_of,
    once_each,
    queried_in,
    queries_of,
    takes_zipped,
    viewed,
)
from services.control_room.room import RoomSide
from services.control_room.sessions import Sessions, cookie_for, token_of
from services.control_room.streams import Audience, Stream, Streams, write_id
from services.control_room.words import words
from services.runtime.errors import DamagedLogError, FieldtallyError, UnreachableError, UsageError
from services.runtime.stops import EXAMPLE_POSITION, EXAMPLE_TIME, EXAMPLES_LOCAL
from services.tally.fold import FOLD_VERSION

HttpResponse = Response[bytes]

JSON_TYPE: Final = "application/json"
HTML_TYPE: Final = "text/html"
LOGIN_BYTES_MAX: Final = 4_096
LOOKED_S: Final = 10.0
"""A server that was not seen for so long is away."""
CHECK_AGAIN_S: Final = 1.0
"""How often at most an open stream's token is asked for again, which is done when something is sent on it."""
AGAIN_S: Final = 5
"""How often the page that stands in the screen's place asks for the screen."""
ZIPPED_FROM: Final = 1_000
_READ: Final = (HttpMethod.GET, HttpMethod.HEAD)
"""Who watches whether a page is there asks for its head."""

_json: Final = msgspec.json.Encoder()
_SAFE: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "cookie, accept-language, accept-encoding",
}


class _Encoded(Struct):
    """A snapshot as it is sent: after a reset all screens ask for the same at the same moment."""

    version: str
    raw: bytes
    zipped: bytes = b""

    @property
    def tag(self) -> str:
        return hashlib.sha256(self.version.encode()).hexdigest()[:16]

    def zip(self) -> bytes:
        self.zipped = self.zipped or gzip.compress(self.raw, 5, mtime=0)
        return self.zipped


class ControlRoom:
    """The handlers over the sides, the streams and those who look."""

    def __init__(
        self,
        sides: Sequence[RoomSide],
        streams: Streams,
        sessions: Sessions,
        past: Past,
        logger: FilteringBoundLogger,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self.sides: dict[Side, RoomSide] = {side.side.side: side for side in sides}
        self.streams = streams
        self._sessions = sessions
        self._past = past
        self._reading = asyncio.Lock()
        self._logger = logger
        self._now = now
        self._monotonic = monotonic
        self._assets = load_assets()
        self._addresses = {name: f"/static/{name}?v={asset.version}" for name, asset in self._assets.items()}
        self._snapshots: dict[Audience, _Encoded] = {}
        self._digests: dict[tuple[str, ...], str] = {}
        for side in sides:
            side.on_change = streams.change
            side.on_side = streams.side
            side.on_reset = partial(self._reset, side)

    def application(self) -> Litestar:
        """Return the application."""
        return Litestar(
            route_handlers=self._handlers(),
            openapi_config=None,
            logging_config=None,
            request_max_body_size=LOGIN_BYTES_MAX,
            exception_handlers={
                RefusedError: self._refused,
                FieldtallyError: self._failed,
                HTTPException: self._http_error,
                Exception: self._fault,
            },
        )

    def _handlers(self) -> list[ControllerRouterHandler]:
        @route("/", http_method=_READ)
        async def wall(request: HttpRequest) -> HttpResponse:
            return await self._page(request)

        @post("/login", status_code=303)
        async def login(request: HttpRequest) -> HttpResponse:
            from_here(request.headers)
            return await self._login(request)

        @route("/login", http_method=_READ, sync_to_thread=False)
        def login_by_address() -> HttpResponse:
            return _response(b"", HTML_TYPE, 303, {**_SAFE, "location": "/"})  # as it stands in the bar after a refusal

        @post("/logout", status_code=303, sync_to_thread=False)
        def logout(request: HttpRequest) -> HttpResponse:
            from_here(request.headers)
            secure = request.url.scheme == "https"
            return _response(
                b"", HTML_TYPE, 303, {**_SAFE, "location": "/", "set-cookie": cookie_for("", secure=secure)}
            )

        @route("/api/tallies", http_method=_READ)
        async def tallies(request: HttpRequest) -> HttpResponse:
            return await self._tallies(request)

        @route("/api/tallies.csv", http_method=_READ)
        async def tallies_csv(request: HttpRequest) -> HttpResponse:
            exported, headers = await self._export(request, "csv")
            return _response(as_csv(exported), "text/csv; header=present", 200, headers, request)

        @route("/api/tallies.json", http_method=_READ)
        async def tallies_json(request: HttpRequest) -> HttpResponse:
            exported, headers = await self._export(request, "json")
            return _response(_json.encode(exported), JSON_TYPE, 200, headers, request)

        @route("/api/hours", http_method=_READ)
        async def hours(request: HttpRequest) -> HttpResponse:
            return await self._hours(request)

        @asgi("/api/stream", copy_scope=False)
        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await self._stream(cast("HTTPScope", scope), receive, send)

        @route("/static/{name:str}", http_method=_READ, sync_to_thread=False)
        def static(request: HttpRequest, name: FromPath[str]) -> HttpResponse:
            return self._static(request, name)

        @route("/health/live", http_method=_READ, sync_to_thread=False)
        def live() -> HttpResponse:
            return _response(_json.encode(Liveness()), JSON_TYPE)

        @route("/health/ready", http_method=_READ, sync_to_thread=False)
        def ready() -> HttpResponse:
            readiness = self._readiness()
            return _response(_json.encode(readiness), JSON_TYPE, 200 if readiness.status == "ready" else 503)

        return [
            wall,
            login,
            login_by_address,
            logout,
            tallies,
            tallies_csv,
            tallies_json,
            hours,
            stream,
            static,
            live,
            ready,
        ]

    def _reset(self, side: RoomSide, reason: ResetReason) -> None:
        self._past.forget()
        self.streams.reset(side.side.side, side.position, reason)

    # Who looks

    async def _audience(self, headers: Mapping[str, str]) -> Audience:
        token = token_of(headers.get("cookie", ""), headers.get("authorization", ""))
        audience = await self._sessions.audience(token)
        if audience is None:
            detail = "log in at / with a token from `fieldtally devices enrol NAME --role viewer --side SI`"
            if await self._sessions.reports(token):
                detail = f"this token is for reporting; {detail}"
            raise RefusedError(problem("not-authenticated", 401, detail), {"www-authenticate": "Bearer"})
        return audience

    async def _login(self, request: HttpRequest) -> HttpResponse:
        form = parse_qs((await request.body()).decode(errors="replace"), keep_blank_values=True)
        token = form.get("token", [""])[0].strip()
        onward = form.get("next", ["/"])[0]
        if not onward.startswith("/") or onward.startswith("//"):  # what a browser reads as such is quoted below
            onward = "/"
        view_language = language_of(queried_in(onward), request.headers.get("accept-language", ""))
        if await self._sessions.audience(token) is None:
            self._logger.info("log_in_refused")
            why = "login.reports" if await self._sessions.reports(token) else "login.wrong"
            html = login_page(view_language, onward, wrong=True, assets=self._addresses, why=why)
            return _response(html.encode(), HTML_TYPE, 401, _SAFE, request)
        secure = request.url.scheme == "https"
        location = quote(onward, safe="/?&=%:,+-._~")
        headers = {**_SAFE, "location": location, "set-cookie": cookie_for(token, secure=secure)}
        return _response(b"", HTML_TYPE, 303, headers)

    # What is shown

    async def _page(self, request: HttpRequest) -> HttpResponse:
        language, view = viewed(request)
        try:
            audience = await self._audience(request.headers)
        except RefusedError:
            onward = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            html = login_page(language, onward, wrong=False, assets=self._addresses, theme=view.theme)
            return _response(html.encode(), HTML_TYPE, 401, _SAFE, request)
        snapshot = await self._past_snapshot(audience, view.at) if view.at else self._encoded(audience).raw
        html = page(language, view, snapshot.decode(), self._addresses)
        return _response(html.encode(), HTML_TYPE, 200, _SAFE, request)

    def _page_instead(self, request: HttpRequest, refused: Problem, headers: Mapping[str, str]) -> HttpResponse:
        """Return a problem as somebody in front of the screen can read it."""
        language, view = viewed(request)
        say = words(language)
        title, text, again_s = "trouble.server-away", "", AGAIN_S
        if refused.pointer == "at":
            title, again_s = "at.title", 0
            text = say(
                "at.wrong", position=EXAMPLE_POSITION, time=EXAMPLE_TIME, local=", ".join(EXAMPLES_LOCAL), at=view.at
            )
        elif refused.code == "unavailable" and not refused.retryable:
            title, text = "trouble.log", refused.detail
        elif refused.code == "fault":
            title = "fault.title"
        html = trouble_page(language, view, self._addresses, title=title, text=text, again_s=again_s)
        return _response(html.encode(), HTML_TYPE, refused.status, {**_SAFE, **headers}, request)

    async def _tallies(self, request: HttpRequest) -> HttpResponse:
        audience = await self._audience(request.headers)
        at = once_each(request).get("at", "")
        if at:
            return _response(await self._past_snapshot(audience, at), JSON_TYPE, 200, _PRIVATE, request)
        encoded = self._encoded(audience)
        tag = f'"{encoded.tag}"'
        if tag in request.headers.get("if-none-match", ""):
            return _response(b"", JSON_TYPE, 304, {**_PRIVATE, "etag": tag})
        if len(encoded.raw) > ZIPPED_FROM and takes_zipped(request):
            headers = {**_PRIVATE, "etag": tag, "content-encoding": "gzip"}
            return _response(encoded.zip(), JSON_TYPE, 200, headers)
        return _response(encoded.raw, JSON_TYPE, 200, {**_PRIVATE, "etag": tag})

    async def _export(self, request: HttpRequest, kind: str) -> tuple[Export, dict[str, str]]:
        """Return what is taken along, and headers that say where it is true even if it has no rows."""
        audience = await self._audience(request.headers)
        query = once_each(request)
        filters = Filters(
            query.get("operation") or None, query.get("side") or None, day_of(query, "from"), day_of(query, "to")
        )
        # A side that is not seen and one that is not there get the same answer; no rows would say that all is quiet.
        if filters.side and filters.side not in audience:
            raise RefusedError(
                problem("malformed-request", 400, f"`side` is one of {', '.join(audience)}", pointer="side")
            )
        if filters.first and filters.last and filters.first > filters.last:
            raise RefusedError(problem("malformed-request", 400, "`from` is after `to`", pointer="to"))
        at = query.get("at", "")
        snapshot = (
            msgspec.json.decode(await self._past_snapshot(audience, at), type=Snapshot)
            if at
            else self._snapshot(audience)
        )
        exported = export(snapshot, filters)
        return exported, {
            **_PRIVATE,
            "content-disposition": f'attachment; filename="{name_of(exported, filters)}.{kind}"',
            "fieldtally-position": ",".join(f"{side}:{position}" for side, position in exported.position.items()),
            "fieldtally-digest": exported.digest,
        }

    async def _hours(self, request: HttpRequest) -> HttpResponse:
        audience = await self._audience(request.headers)
        day = day_of({name: values[0] for name, values in queries_of(request).items()}, "day")
        if day is None or not FIRST_DAY <= day <= LAST_DAY:
            raise RefusedError(problem("malformed-request", 400, "`day` is a date such as 2024-03-14", pointer="day"))
        async with self._reading:  # the log from that day on: one at a time, so that the present is not kept waiting
            found = {side: await self.sides[side].hours_of(day) for side in audience}
        return _response(_json.encode(found), JSON_TYPE, 200, _PRIVATE, request)

    def _snapshot(self, audience: Audience) -> Snapshot:
        sides = [self.sides[side] for side in audience]
        return Snapshot(
            view="live",
            now=self._now(),
            id=write_id({side.side.side: side.position for side in sides}, audience),
            digest=self._digest(audience),
            fold_version=FOLD_VERSION,
            sides=tuple(side.shown() for side in sides),
        )

    def _encoded(self, audience: Audience) -> _Encoded:
        """Return the snapshot as it is sent, made once for all who ask for the same."""
        sides = [self.sides[side] for side in audience]
        version = "|".join(f"{side.generation}:{side.position}:{side.looked}" for side in sides)
        kept = self._snapshots.get(audience)
        if kept is None or kept.version != version:
            kept = self._snapshots[audience] = _Encoded(version, _json.encode(self._snapshot(audience)))
        return kept

    async def _past_snapshot(self, audience: Audience, at: str) -> bytes:
        try:
            stops = read_at(at, audience, self.sides[audience[0]].side.zone, self._now())
        except UsageError as error:
            raise RefusedError(problem("malformed-request", 400, str(error), pointer="at")) from error
        shown = await self._past.shown(stops)
        return _json.encode(
            Snapshot(
                view="past",
                now=self._now(),
                id=write_id({side.side: side.position for side in shown}, audience),
                digest=joined_digest(side.cells for side in shown),
                fold_version=FOLD_VERSION,
                # The last audit is one of the present: where and when it agreed stands beside it.
                sides=tuple(msgspec.structs.replace(side, audit=self.sides[side.side].audit) for side in shown),
                at=at,
                ahead=lies_ahead(stops, self._now()),
            )
        )

    def _digest(self, audience: Audience) -> str:
        own = tuple(self.sides[side].digest for side in audience)
        if len(own) == 1:
            return own[0]
        if own not in self._digests:
            self._digests = {own: joined_digest(self.sides[side].cells for side in audience)}
        return self._digests[own]

    # The stream

    async def _stream(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["method"] != "GET":
            raise RefusedError(problem("method-not-allowed", 405, "only GET"), {"allow": "GET"})
        audience = await self._audience(headers)
        since = headers.get("last-event-id") or parse_qs(scope["query_string"].decode("latin-1")).get("since", [""])[0]
        plans = [self.sides[side].plans() for side in audience]
        stream = self.streams.open(audience, since, self.heartbeat(audience), plans)
        gone = asyncio.ensure_future(_gone(receive))
        gone.add_done_callback(lambda _: stream.end())
        checked = self._monotonic()
        checking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        checking.set_result(None)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
            while piece := await stream.next():
                if checking.done() and self._monotonic() - checked > CHECK_AGAIN_S:
                    checked = self._monotonic()
                    checking = asyncio.create_task(self._end_unless_seen(stream, headers, audience))
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            checking.cancel()
            self.streams.close(audience, stream)

    async def _end_unless_seen(self, stream: Stream, headers: Mapping[str, str], audience: Audience) -> None:
        """End a stream whose token no longer sees its sides. It goes on meanwhile, and while nobody can be asked."""
        may_go_on = False
        try:
            may_go_on = await self._audience(headers) == audience
        except FieldtallyError:
            may_go_on = True
        except RefusedError:
            pass
        finally:
            if not may_go_on:
                stream.end()

    def heartbeat(self, audience: Audience) -> HeartbeatMessage:
        """Return how the sides of an audience stand."""
        sides = [self.sides[side] for side in audience]
        looked = min((side.looked for side in sides if side.looked), default=None)
        trouble: Trouble = ""
        if any(isinstance(side.failure, DamagedLogError) for side in sides):
            trouble = "damaged"
        elif looked is None or (self._now() - looked).total_seconds() > LOOKED_S or any(side.failure for side in sides):
            trouble = "server-away"
        elif any(side.lag_s() > LOOKED_S for side in sides):
            trouble = "projector-behind"
        return HeartbeatMessage(
            now=self._now(),
            looked=looked,
            trouble=trouble,
            digest=self._digest(audience),
            sides=tuple(side.standing() for side in sides),
        )

    async def beat(self) -> None:
        """Send heartbeats for ever."""
        while True:
            for audience in self.streams.audiences:
                self.streams.heartbeat(audience, self.heartbeat(audience))
            await asyncio.sleep(HEARTBEAT_S)

    # What is served as it is

    def _static(self, request: HttpRequest, name: str) -> HttpResponse:
        asset = self._assets.get(name)
        if asset is None:
            raise RefusedError(problem("not-found", 404, "no such file"))
        versioned = queries_of(request).get("v") == [asset.version]
        tag = f'"{asset.version}"'
        headers = {
            "etag": tag,
            "cache-control": "public, max-age=31536000, immutable" if versioned else "no-cache",
            "x-content-type-options": "nosniff",
            "vary": "accept-encoding",
        }
        if tag in request.headers.get("if-none-match", ""):
            return _response(b"", asset.media_type, 304, headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return _response(asset.zipped, asset.media_type, 200, {**headers, "content-encoding": "gzip"})
        return _response(asset.raw, asset.media_type, 200, headers)

    def _readiness(self) -> Readiness:
        checks = tuple(
            Check(
                check="redis",
                side=name,
                ok=side.failure is None and side.loaded,
                detail=str(side.failure or f"{side.lag_s():g} s behind"),
            )
            for name, side in self.sides.items()
        )
        return Readiness(status="ready" if all(check.ok for check in checks) else "not-ready", checks=checks)

    # What goes wrong

    def _refused(self, request: HttpRequest, error: RefusedError) -> HttpResponse:
        path, status = request.url.path, error.problem.status
        if (path == "/" and request.method in {"GET", "HEAD"}) or (path == "/login" and status >= 500):
            return self._page_instead(request, error.problem, error.headers)
        if path == "/login" and request.method == "POST":  # a person, whatever was sent
            language = language_of({}, request.headers.get("accept-language", ""))
            html = login_page(language, "/", wrong=True, assets=self._addresses, why="login.none")
            return _response(html.encode(), HTML_TYPE, status, {**_SAFE, **error.headers}, request)
        return _response(_json.encode(error.problem), PROBLEM_TYPE, error.problem.status, {**_PRIVATE, **error.headers})

    def _failed(self, request: HttpRequest, error: FieldtallyError) -> HttpResponse:
        self._logger.warning("unavailable", reason=str(error))
        away = isinstance(error, UnreachableError)
        detail = "the server does not answer" if away else str(error)
        refused = problem("unavailable", 503, detail, retryable=away)
        refused = msgspec.structs.replace(refused, title="This cannot be shown at the moment")  # the code is a writer's
        return self._refused(request, RefusedError(refused, {"retry-after": "2"}))

    def _http_error(self, request: HttpRequest, error: HTTPException) -> HttpResponse:
        code = cast("Code | None", {400: "malformed-request", 404: "not-found", 405: "method-not-allowed",
                                    413: "too-large"}.get(error.status_code))  # fmt: skip
        if code is None:
            return self._fault(request, error)
        return self._refused(
            request, RefusedError(problem(code, error.status_code, "see / for the screen"), error.headers)
        )

    def _fault(self, request: HttpRequest, error: Exception) -> HttpResponse:
        self._logger.error("fault", reason=type(error).__name__)
        return self._refused(request, RefusedError(problem("fault", 500, "the operator's log has the kind of fault")))


_PRIVATE: Final = {
    "cache-control": "private, no-cache",
    "vary": "cookie, accept-encoding",
    "x-content-type-options": "nosniff",
}
_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


async def _gone(receive: Receive) -> None:
    """Return when the browser has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _response(
    body: bytes,
    media_type: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    zip_for: HttpRequest | None = None,
) -> HttpResponse:
    sent = dict(headers or {})
    if zip_for is not None and len(body) > ZIPPED_FROM and takes_zipped(zip_for):
        body = gzip.compress(body, 5, mtime=0)
        sent["content-encoding"] = "gzip"
    return Response(body, status_code=status, media_type=media_type, headers=sent)
