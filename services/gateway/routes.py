"""The gateway's HTTP (DESIGN section 7): requests to reports, results to answers; what is recorded, admission says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Final, cast

import msgspec
from litestar import Litestar, Request, Response, asgi, get
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler, HTTPScope, Receive, Scope, Send
from msgspec import Struct, field
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from schemas.http import (
    BATCH_MAX,
    EVENT_BYTES_MAX,
    PROBLEM_TYPE,
    REQUEST_BYTES_MAX,
    SENT_HEADER,
    Check,
    Code,
    Liveness,
    Readiness,
    Result,
    Results,
    problem,
)
from schemas.principals import Principal, Role
from schemas.vocabulary import Side
from services.gateway.admission import Admitted, admit, clock_off_s
from services.gateway.intake import (
    Intake,
    RawHeaders,
    RefusedError,
    is_large,
    is_single,
    items_of,
    mistake,
    sent_at,
)
from services.gateway.metrics import CONTENT_TYPE, Metrics
from services.gateway.side import GatewaySide, LaggingError
from services.gateway.tokens import BELIEVED_S, RateLimit, Tokens, not_taken
from services.runtime.errors import FieldtallyError
from services.store.connection import BusyServerError
from services.tally.numbers import missing_count

HttpRequest = Request[Any, Any, Any]
HttpResponse = Response[bytes]

JSON_TYPE: Final = "application/json"
EVENTS: Final = "/v1/events"
REPORTERS: Final[tuple[Role, ...]] = ("unit", "desk")
RETRY_AWAY_S: Final = 2
RETRY_FULL_S: Final = 30
RETRY_LAGGING_S: Final = 5
DEVICES_KEPT_S: Final = 10.0
ANSWERED_S: Final = 0.1

_STATUS: Final = {"recorded": 201, "duplicate": 200, "conflict": 409, "rejected": 422}
_json: Final = msgspec.json.Encoder()
_STYLE_ONLY: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Pages(Struct, frozen=True):
    """What is served as it is."""

    openapi: bytes
    asyncapi: bytes
    docs: bytes
    docs_css: bytes


class Gateway:
    """The gateway's handlers over its sides, tokens and clocks."""

    def __init__(
        self,
        sides: Sequence[GatewaySide],
        tokens: Tokens,
        rate_limit: RateLimit,
        pages: Pages,
        logger: FilteringBoundLogger,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self.sides: dict[Side, GatewaySide] = {side.side.side: side for side in sides}
        self.metrics = Metrics(self.sides)
        self._tokens = tokens
        self._rate_limit = rate_limit
        self._pages = pages
        self._logger = logger
        self._now = now
        self._monotonic = monotonic
        self._devices_counted_at = -DEVICES_KEPT_S
        self._answered: dict[str, _Answered] = {}
        self.intake = Intake(monotonic)
        self.full: FieldtallyError | None = None

    def application(self, origins: Iterable[str]) -> Litestar:
        """Return the application; pages of these web origins may use it too."""
        origins = list(origins)
        return Litestar(
            route_handlers=self._handlers(),
            openapi_config=None,  # its own generator knows nothing of what admission asks for; see `openapi`
            logging_config=None,
            request_max_body_size=REQUEST_BYTES_MAX,
            exception_handlers={
                RefusedError: self._refused,
                FieldtallyError: self._failed,
                HTTPException: self._http_error,
                Exception: self._fault,
            },
            cors_config=CORSConfig(
                allow_origins=origins,
                allow_methods=["GET", "HEAD", "POST"],
                allow_headers=["authorization", "content-type", SENT_HEADER.lower()],
                expose_headers=["retry-after"],
                max_age=600,
            )
            if origins
            else None,
        )

    def _handlers(self) -> list[ControllerRouterHandler]:
        pages = self._pages

        # A plain ASGI handler: every report comes through here, and requests and responses as objects cost twice what
        # everything that is done for the report costs.
        @asgi(EVENTS, copy_scope=False)
        async def events(scope: Scope, receive: Receive, send: Send) -> None:
            await self.events(cast("HTTPScope", scope), receive, send)

        @get("/v1/devices/me")
        async def standing(request: HttpRequest) -> HttpResponse:
            principal = await self._asking(request)
            return _answer(await self._side(principal).standing(principal))

        @get("/v1/operations")
        async def operations(request: HttpRequest) -> HttpResponse:
            principal = await self._asking(request)
            return _answer(await self._side(principal).open_operations(self._now()))

        @get("/", sync_to_thread=False)
        def root() -> HttpResponse:
            return Response(b"", status_code=307, headers={"location": "/docs"})

        @get("/openapi.json", sync_to_thread=False)
        def openapi() -> HttpResponse:
            return Response(pages.openapi, media_type=JSON_TYPE)

        @get("/asyncapi.json", sync_to_thread=False)
        def asyncapi() -> HttpResponse:
            return Response(pages.asyncapi, media_type=JSON_TYPE)

        @get("/docs", sync_to_thread=False)
        def docs() -> HttpResponse:
            return Response(pages.docs, media_type="text/html", headers=_STYLE_ONLY)

        @get("/docs.css", sync_to_thread=False)
        def docs_css() -> HttpResponse:
            return Response(pages.docs_css, media_type="text/css", headers=_STYLE_ONLY)

        @get("/health/live", sync_to_thread=False)
        def live() -> HttpResponse:
            return _answer(Liveness())

        @get("/health/ready")
        async def ready() -> HttpResponse:
            readiness = self.readiness()
            return _answer(readiness, 200 if readiness.status == "ready" else 503)

        @get("/metrics")
        async def metrics() -> HttpResponse:
            await self._update_gauges()
            # Litestar says the charset of a text itself.
            return Response(self.metrics.text(), media_type=CONTENT_TYPE.removesuffix("; charset=utf-8"))

        return [
            events, standing, operations, root, openapi, asyncapi, docs, docs_css, live, ready, metrics,
        ]  # fmt: skip

    # /v1/events

    async def events(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer a request to /v1/events."""
        headers = dict(scope["headers"])
        match scope["method"]:
            case "POST":
                status, body, more = await self._submit(headers, receive)
                more = [(b"content-type", JSON_TYPE.encode()), (b"content-length", b"%d" % len(body)), *more]
            case "HEAD":
                await self._principal(headers)
                status, body, more = 204, b"", LIMIT_HEADERS
            case "OPTIONS":
                status, body, more = 204, b"", [(b"allow", METHODS.encode())]
            case method:
                detail = _DETAILS["method-not-allowed"].format(method=method)
                if method == "GET":
                    detail = "reports are sent here, with POST; GET /v1/devices/me says which of a device have arrived"
                raise RefusedError(problem("method-not-allowed", 405, detail), {"allow": METHODS})
        await send({"type": "http.response.start", "status": status, "headers": more})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def events_alone(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer a request to /v1/events with nothing around it: every report comes this way.

        Litestar's routing and error handling cost a twentieth of a report. Where pages of other origins may use the
        gateway, requests go through it all the same, for what it says to them.
        """
        try:
            await self.events(scope, receive, send)
        except RefusedError as error:
            answer = self._refused(None, error)
        except FieldtallyError as error:
            answer = self._failed(None, error)
        except Exception as error:  # noqa: BLE001  # as Litestar's own handler: each is answered
            answer = self._fault(None, error)
        else:
            return
        headers = {
            "content-type": answer.media_type or "",
            "content-length": str(len(answer.content)),
            **answer.headers,
        }
        raw = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        await send({"type": "http.response.start", "status": answer.status_code or 500, "headers": raw})
        await send({"type": "http.response.body", "body": answer.content, "more_body": False})

    async def _submit(self, headers: RawHeaders, receive: Receive) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Take one report or a batch; the answer is a receipt for each of them."""
        begun, received = self._monotonic(), self._now()
        token, principal = await self._principal(headers)
        single = is_single(headers)
        self._let_in(token)
        self._side(principal).ready()
        large = not single and is_large(headers)
        self.intake.begin(token)
        try:
            async with self.intake.room(token) if large else _NO_ROOM_NEEDED:
                body = await self.intake.read(headers, receive, EVENT_BYTES_MAX if single else REQUEST_BYTES_MAX)
                if self._monotonic() - begun > BELIEVED_S:  # a body may take its time, and the token end meanwhile
                    await self._principal(headers)
                sent = sent_at(headers)
                raws = [body] if single else items_of(body)
                self._pay(token, len(raws))
                results = await self._record(raws, principal, sent, received)
        finally:
            self.intake.end(token)
        self.metrics.acknowledged.observe(self._monotonic() - begun)
        self._log_answer(principal, results, self._monotonic() - begun)
        if not single:
            return 202, _json.encode(Results(tuple(results))), []
        (result,) = results
        if result.problem and result.problem.retryable:
            raise RefusedError(result.problem, {"retry-after": str(RETRY_AWAY_S)})
        if result.problem and result.problem.code == "malformed" and (said := mistake(body, single=True)):
            result = replace(result, problem=replace(result.problem, detail=said))
        return _STATUS[result.status], _json.encode(result), []

    async def _record(
        self, raws: Sequence[bytes], principal: Principal, sent: datetime | None, received: datetime
    ) -> list[Result]:
        results: dict[int, Result] = {}
        admitted: dict[Side, list[tuple[int, Admitted]]] = {}
        for at, raw in enumerate(raws):
            decision = admit(raw, self.sides)
            if isinstance(decision, Admitted):
                admitted.setdefault(decision.event.side, []).append((at, decision))
            else:
                results[at] = Result(id=decision.id, status="rejected", problem=decision.problem)
        for name, items in admitted.items():
            side = self.sides[name]
            taken = await side.take([item for _, item in items], principal, received)
            for (at, item), result in zip(items, taken, strict=True):
                off = clock_off_s(sent, item.event.time, received)
                results[at] = result if off is None else replace(result, clock_off_s=off)
        for result in results.values():
            self.metrics.count(principal.side, result)
            if result.clock_off_s:
                self.metrics.clock_off.inc()
        return [results[at] for at in sorted(results)]

    # Who asks

    async def _principal(self, headers: RawHeaders) -> tuple[str, Principal]:
        """Return who asks, with the digest of the token; all that is under /v1 is for those who report."""
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        found = await self._tokens.principal(authorization)
        if found is None:
            refused = problem("not-authenticated", 401, not_taken(authorization))
            raise RefusedError(refused, {"www-authenticate": "Bearer"})
        principal = found[1]
        if principal.role not in REPORTERS:
            raise RefusedError(
                problem("not-allowed", 403, f"reports come from units and desks, not from a {principal.role}")
            )
        if principal.side not in self.sides:
            raise RefusedError(problem("not-allowed", 403, f"there is no side {principal.side} here"))
        return found

    async def _asking(self, request: HttpRequest) -> Principal:
        """Return who asks for something; that costs as much as a report."""
        token, principal = await self._principal(dict(request.scope["headers"]))
        self._let_in(token)
        return principal

    def _let_in(self, token: str) -> None:
        """Take a request off what a token may send, also if it turns out to be unreadable."""
        self._require_paid(token, 1)
        self._rate_limit.take(token, 1)

    def _pay(self, token: str, reports: int) -> None:
        """Take off what a request that was let in brings, unless others that came with it have used up everything."""
        self._require_paid(token, 0)
        self._rate_limit.take(token, max(0, reports - 1))

    def _require_paid(self, token: str, left: int) -> None:
        wait_s = self._rate_limit.wait_s(token, left)
        if wait_s:
            detail = f"wait {wait_s} s; what was sent before counts"
            raise RefusedError(problem("rate-limited", 429, detail, retryable=True), {"retry-after": str(wait_s)})

    def _side(self, principal: Principal) -> GatewaySide:
        return self.sides[Side(principal.side)]

    # How it goes

    def readiness(self) -> Readiness:
        """Say whether reports are taken, and what stands in the way."""
        checks: list[Check] = []
        for name, side in self.sides.items():
            failure = side.failure
            checks.append(Check(check="redis", side=name, ok=failure is None, detail=str(failure or "answers")))
            try:
                side.ready()
                lagging = ""
            except LaggingError as error:
                lagging = str(error)
            except FieldtallyError:
                lagging = "not known"
            checks.append(
                Check(check="lag", side=name, ok=not lagging, detail=lagging or f"{side.lag:,} entries to be counted")
            )
        unknown = "not known" if any(side.failure for side in self.sides.values()) else ""
        refusing = str(self.full or unknown)
        checks.append(Check(check="writes", ok=not refusing, detail=refusing or "are taken"))
        ready = all(check.ok for check in checks)
        return Readiness(status="ready" if ready else "not-ready", checks=tuple(checks))

    async def _update_gauges(self) -> None:
        now = self._now()
        for name, side in self.sides.items():
            self.metrics.lag_entries.labels(name).set(side.lag)
            self.metrics.lag_seconds.labels(name).set(side.lag_s(now))
            self.metrics.parked.labels(name).set(side.seen.parked if side.seen else 0)
        if self._monotonic() - self._devices_counted_at >= DEVICES_KEPT_S:
            self._devices_counted_at = self._monotonic()
            devices = await asyncio.gather(*(side.devices() for side in self.sides.values()), return_exceptions=True)
            for name, found in zip(self.sides, devices, strict=True):
                if not isinstance(found, BaseException):
                    missing = sum(missing_count(numbers) > 0 for numbers in found.values())
                    self.metrics.devices_missing.labels(name).set(missing)

    def _log_answer(self, principal: Principal, results: Sequence[Result], seconds: float) -> None:
        """Log what was answered: one line for all requests of a side within a tenth of a second."""
        line = self._answered.get(principal.side)
        if line is None:
            line = self._answered[principal.side] = _Answered()
            asyncio.get_running_loop().call_later(ANSWERED_S, self._write_answered, principal.side)
        line.requests += 1
        line.seconds = max(line.seconds, seconds)
        for result in results:
            line.became[result.status] += 1

    def write_answered(self) -> None:
        """Write the lines that are still to be written."""
        for side in list(self._answered):
            self._write_answered(side)

    def _write_answered(self, side: str) -> None:
        line = self._answered.pop(side, None)
        if line is None:
            return
        self._logger.info(
            "requests_answered", side=side, requests=line.requests, seconds=round(line.seconds, 4), **line.became
        )

    # What goes wrong

    def _refused(self, _request: HttpRequest | None, error: RefusedError) -> HttpResponse:
        self.metrics.refused.labels(error.problem.code).inc()
        self._logger.info("request_refused", code=error.problem.code, status=error.problem.status)
        return _answer(error.problem, error.problem.status, PROBLEM_TYPE, error.headers)

    def _failed(self, request: HttpRequest | None, error: FieldtallyError) -> HttpResponse:
        code: Code = "lagging" if isinstance(error, LaggingError) else "unavailable"
        wait_s = RETRY_LAGGING_S if code == "lagging" else RETRY_FULL_S if _is_full(error) else RETRY_AWAY_S
        self._logger.warning("unavailable", reason=str(error), wait_s=wait_s)
        detail = "nothing of this request was confirmed; send it again later"
        refused = problem(code, 503, detail, retryable=True)
        return self._refused(request, RefusedError(refused, {"retry-after": str(wait_s)}))

    def _http_error(self, request: HttpRequest, error: HTTPException) -> HttpResponse:
        code = _CODES.get(error.status_code)
        if code is None:
            return self._fault(request, error)
        detail = _DETAILS[code].format(method=request.method)
        return self._refused(request, RefusedError(problem(code, error.status_code, detail), error.headers))

    def _fault(self, request: HttpRequest | None, error: Exception) -> HttpResponse:
        self._logger.error("fault", reason=type(error).__name__)
        detail = "nothing of this request was confirmed; the operator's log has the kind of fault"
        return self._refused(request, RefusedError(problem("fault", 500, detail, retryable=True)))


_NO_ROOM_NEEDED: Final = nullcontext()
METHODS: Final = "HEAD, OPTIONS, POST"


class _Answered(Struct):
    """What one log line is about; `seconds` is the longest of its requests."""

    requests: int = 0
    seconds: float = 0.0
    became: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_STATUS, 0))


LIMIT_HEADERS: Final = [
    (b"fieldtally-event-bytes-max", b"%d" % EVENT_BYTES_MAX),
    (b"fieldtally-request-bytes-max", b"%d" % REQUEST_BYTES_MAX),
    (b"fieldtally-batch-max", b"%d" % BATCH_MAX),
]

_CODES: Final[dict[int, Code]] = {
    400: "malformed-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
}
_DETAILS: Final[dict[Code, str]] = {
    "malformed-request": "the request's headers cannot be read",
    "not-found": "/docs shows what there is",
    "method-not-allowed": "{method} is not among the methods in `Allow`; /docs shows what each address takes",
    "too-large": f"at most {REQUEST_BYTES_MAX:,} bytes a request and {EVENT_BYTES_MAX:,} a report",
}


def _is_full(error: FieldtallyError) -> bool:
    return isinstance(error, BusyServerError)


def _answer(
    body: Struct, status: int = 200, media_type: str = JSON_TYPE, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    return Response(_json.encode(body), status_code=status, media_type=media_type, headers=dict(headers or {}))
