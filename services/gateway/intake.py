"""A request to /v1/events as it comes in: its media type, its time of sending, its body, all of it within limits.

What a body takes of the gateway's memory is bounded: each token has a few requests under way, and of the large bodies a
few are read at once, the others in line. A body no longer than a single report needs no place in that line: a
connection holds as much of any body before anybody reads it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from litestar.types import Receive

from schemas.codec import RFC_3339_PATTERN
from schemas.http import (
    BATCH_MAX,
    BATCH_TYPE,
    EVENT_BYTES_MAX,
    EVENT_TYPE,
    REQUEST_BYTES_MAX,
    SENT_HEADER,
    Problem,
    problem,
)

RawHeaders: TypeAlias = Mapping[bytes, bytes]

BODY_S: Final = 60
UNDER_WAY_MAX: Final = 16
"""Requests of one token at once: a phone has one, a desk a few."""
LARGE_MAX: Final = 32
"""Bodies of more than a report's length that are read and recorded at once; each has a megabyte at most."""
LARGE_OF_TOKEN_MAX: Final = 2
LINE_S: Final = 30
RETRY_S: Final = 2
HANG_UP: Final = {"connection": "close"}
"""For who does not send the rest of a body."""

_WELL_FORMED: Final = re.compile(RFC_3339_PATTERN)
_FILE_NAME: Final = re.compile(rb"@?[\w./\\:~ -]{1,200}\.\w{1,8}\s*")
_UTF_8_MARK: Final = b"\xef\xbb\xbf"
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_batch: Final = msgspec.json.Decoder(list[msgspec.Raw])
_moment: Final = msgspec.json.Decoder(datetime)


class RefusedError(Exception):
    """A request that is refused as a whole."""

    def __init__(self, refused: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refused.code)
        self.problem = refused
        self.headers = dict(headers or {})


class Intake:
    """Bodies under way; `monotonic` counts seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._under_way: dict[str, int] = {}
        self._large = asyncio.Semaphore(LARGE_MAX)
        self._large_of: Counter[str] = Counter()
        self._reading: dict[asyncio.Task[Any], float] = {}

    def begin(self, token: str) -> None:
        """Count a request of a token, by its digest, as under way, until `end`; refuse it if too many are.

        None waits in line: each that did would hold what its connection has received, and no client needs so many.
        """
        count = self._under_way.get(token, 0)
        if count >= UNDER_WAY_MAX:
            detail = f"{count} requests of this token are under way: wait for their answers before sending more"
            raise RefusedError(problem("rate-limited", 429, detail, retryable=True), {"retry-after": str(RETRY_S)})
        self._under_way[token] = count + 1

    def end(self, token: str) -> None:
        """A request of a token is over."""
        left = self._under_way[token] - 1
        if left:
            self._under_way[token] = left
        else:
            del self._under_way[token]

    @asynccontextmanager
    async def room(self, token: str) -> AsyncIterator[None]:
        """Keep room for a large body, if need be after those that came before; refuse it if that takes too long.

        A token has a few of the places, so that a few tokens cannot keep all others out.
        """
        if self._large_of[token] >= LARGE_OF_TOKEN_MAX:
            detail = f"{LARGE_OF_TOKEN_MAX} large batches of this token are under way: wait for their answers"
            raise RefusedError(problem("rate-limited", 429, detail, retryable=True), {"retry-after": str(RETRY_S)})
        self._large_of[token] += 1
        try:
            async with self._place():
                yield
        finally:
            self._large_of[token] -= 1
            if not self._large_of[token]:
                del self._large_of[token]

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(LINE_S):
                await self._large.acquire()
        except TimeoutError:
            detail = "too many large batches come in at once; send it again later, or in smaller parts"
            headers = {"retry-after": str(RETRY_S)}
            raise RefusedError(problem("unavailable", 503, detail, retryable=True), headers) from None
        try:
            yield
        finally:
            self._large.release()

    async def read(self, headers: RawHeaders, receive: Receive, bytes_max: int) -> bytes:
        """Read the body; who takes longer than a minute for it is not waited for."""
        # No timer for each request, which costs as much as admission: `end_slow` looks now and then.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # we are a coroutine
        self._reading[task] = self._monotonic()
        try:
            return await _body(headers, receive, bytes_max)
        except asyncio.CancelledError:
            if task in self._reading:
                raise
            detail = f"the body took longer than {BODY_S} seconds"
            raise RefusedError(problem("malformed-request", 400, detail, retryable=True), HANG_UP) from None
        finally:
            self._reading.pop(task, None)

    def end_slow(self) -> None:
        """Refuse the requests whose bodies do not come: nobody holds a connection open for nothing."""
        late = self._monotonic() - BODY_S
        for task in [task for task, began in self._reading.items() if began < late]:
            del self._reading[task]
            task.cancel()


def is_single(headers: RawHeaders) -> bool:
    """Tell one report from a batch by the content type, or refuse what is neither."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RefusedError(problem("compressed", 415, "send the body as it is, without Content-Encoding"))
    text = headers.get(b"content-type", b"")
    single = _content_type(text)
    if single is None:
        detail = f"send {EVENT_TYPE} or {BATCH_TYPE}, in UTF-8"
        if text.lower().startswith(b"application/x-www-form-urlencoded"):  # what curl says of any -d
            detail += "; with curl: -H 'Content-Type: …' --data-binary @report.json"
        raise RefusedError(problem("unsupported-media-type", 415, detail), {"accept": f"{EVENT_TYPE}, {BATCH_TYPE}"})
    return single


@lru_cache(maxsize=100)
def _content_type(text: bytes) -> bool | None:
    """Tell one report from a batch; None for what is neither."""
    media_type, _, parameters = text.decode("latin-1").lower().partition(";")
    if re.sub(r"[\s\"]", "", parameters) not in ("", "charset=utf-8"):
        return None
    return {EVENT_TYPE: True, BATCH_TYPE: False}.get(media_type.strip())


def is_large(headers: RawHeaders) -> bool:
    """Tell whether a batch may be longer than any single report, and not so long that it is refused unread."""
    announced = headers.get(b"content-length", b"")
    return not announced.isdigit() or EVENT_BYTES_MAX < int(announced) <= REQUEST_BYTES_MAX


async def _body(headers: RawHeaders, receive: Receive, bytes_max: int) -> bytes:
    """Read the body, or refuse it as soon as it is too long."""
    announced = headers.get(b"content-length", b"")
    chunks: list[bytes] = []
    left = bytes_max
    too_long = announced.isdigit() and int(announced) > bytes_max
    more = True
    while more and not too_long:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedError(problem("malformed-request", 400, "the request was broken off", retryable=True))
        chunks.append(message["body"])
        left -= len(message["body"])
        too_long = left < 0
        more = message["more_body"]
    if too_long:
        # Not hung up on here: a client that is still sending would not get to read the answer. `protocol` lets it
        # finish, within limits.
        raise RefusedError(problem("too-large", 413, f"the body is longer than {bytes_max:,} bytes"))
    return b"".join(chunks)


def sent_at(headers: RawHeaders) -> datetime | None:
    """Return what the device's clock showed when it sent this, if it says so."""
    text = headers.get(SENT_HEADER.lower().encode())
    if text is None:
        return None
    try:
        if _WELL_FORMED.match(text.decode("latin-1")):
            return _moment.decode(b'"%b"' % text)
    except msgspec.MsgspecError:
        pass
    detail = f"the header {SENT_HEADER} is no time as RFC 3339 has it, such as 2024-03-14T04:12:09+01:00"
    raise RefusedError(problem("malformed-request", 400, detail))


def items_of(body: bytes) -> list[bytes]:
    """Return the items of a batch as they stand in it."""
    try:
        items = _batch.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        detail = mistake(body, single=False) or "the body is not a JSON array of reports"
        raise RefusedError(problem("malformed-request", 400, detail)) from error
    if len(items) > BATCH_MAX:
        raise RefusedError(problem("too-many-events", 413, f"{len(items):,} reports; at most {BATCH_MAX} at once"))
    return [bytes(item) for item in items]


def mistake(body: bytes, *, single: bool) -> str:
    """Say what was probably meant by a body that cannot be read, and what to do; or nothing."""
    text = body.strip()
    if not text:
        return "the body is empty: send the report itself; with curl: --data-binary @report.json"
    if body.startswith(_UTF_8_MARK):
        return "the body begins with a byte order mark: save it as UTF-8 without one"
    if body.startswith(_UTF_16_MARKS):
        return "the body is in UTF-16: save it as UTF-8"
    if single and text.startswith(b"["):
        return f"the body is an array: send a batch as {BATCH_TYPE}"
    if not single and text.startswith(b"{"):
        return f"the body is a single report: send it as {EVENT_TYPE}, or put it in brackets"
    if _FILE_NAME.fullmatch(body):
        return "the body is the name of a file, not what stands in it; with curl: --data-binary @ and then the name"
    return ""
