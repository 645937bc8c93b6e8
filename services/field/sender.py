"""The sender: takes what is pending to the gateway, in order and in batches, and believes nothing but a receipt.

A report is settled by one thing alone: an answer 202 whose results name exactly the reports that were sent. A 200 with
a login page, half an answer, somebody else's ids, a redirect or silence leave it pending. Sending twice is harmless,
since the log takes a report by its id; not sending is not, so in doubt it is sent.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from schemas.http import (
    BATCH_TYPE,
    PROBLEM_TYPE,
    REQUEST_BYTES_MAX,
    SENT_HEADER,
    DeviceStanding,
    Problem,
    Result,
    Results,
)
from schemas.vocabulary import parse_source
from services.field.link import Enrolment
from services.field.outbox import Outbox

if TYPE_CHECKING:
    import httpx

BATCH_COUNT: Final = 50
BATCH_BYTES: Final = 262_144
ANSWER_BYTES_MAX: Final = 16 * REQUEST_BYTES_MAX  # a device's missing numbers may be many
BROKEN_MAX: Final = 2  # attempts in a row that break on the way before fewer reports go together
ANSWER_S_MAX: Final = 60.0  # from the question to the last byte
LOOK_AGAIN_S: Final = 3_600.0
PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 300.0
LONG_PAUSE_S: Final = 1_800.0
RETRY_AFTER_S_MAX: Final = 3_600.0


class Answer(NamedTuple):
    """What came back: the status, `Retry-After` and the body, as far as it was taken."""

    status: int
    retry_after: str
    media_type: str
    body: bytes


class Trouble(NamedTuple):
    """Why the reports of a request are still pending, in words.

    `least_s` is how long the gateway asked to be left alone. `long`: only a person can help. `narrow`: one report
    among them may be the reason, so fewer go together next time. `too_large`: so many cannot go together at all.
    `unsent`: there was no connection, so nothing has left the device. `broken`: there was one, and no answer came.
    """

    text: str
    least_s: float = 0.0
    long: bool = False
    narrow: bool = False
    too_large: bool = False
    unsent: bool = False
    broken: bool = False


class Turn(NamedTuple):
    """How a turn ended: `trouble` if something stands in the way, `busy` if somebody else is sending.

    `went_through`: some reports were settled before that.
    """

    trouble: Trouble | None = None
    busy: bool = False
    went_through: bool = False


OnSettled = Callable[[int, int], object]
"""Told of each answer that settles reports: how many were delivered by it, and how many rejected."""


class Pauses:
    """Growing pauses with jitter, so that many devices do not come back at the same moment.

    Not stamina's: these are broken off by a new report, by `flush` and by `close`, and never end in giving up.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._failed = 0

    def reset(self) -> None:
        """Begin again with the shortest: something went through."""
        self._failed = 0

    def next(self, trouble: Trouble) -> float:
        """Return how many seconds to pause; no less than the gateway asked for."""
        whole = LONG_PAUSE_S if trouble.long else min(PAUSE_S_MIN * 2.0 ** min(self._failed, 30), PAUSE_S_MAX)
        self._failed += 1
        return max(whole * (0.5 + 0.5 * self._jitter()), trouble.least_s * (1.0 + 0.1 * self._jitter()))


class Sender:
    """One sender's life: who it sends as, its connection, and what it has learnt about the gateway."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        on_notice: Callable[[str], object],
        connect_s: float,
        answer_s: float,
    ) -> None:
        self._outbox = outbox
        self._now = now
        self._monotonic = monotonic
        self._on_notice = on_notice
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._enrolment: Enrolment | None = None
        self._client: httpx.Client | None = None
        self._socket: socket.socket | None = None  # of the latest connection
        self._looked_at: float | None = None  # by us
        self._not_before = 0.0
        self._most = BATCH_COUNT  # what the way to the gateway takes
        self._limit = BATCH_COUNT  # what we try now
        self._broken = 0  # attempts in a row
        self._after = 0  # the place of a report that does not get through, passed over for this round
        self._passed_over: Trouble | None = None  # what became of it

    def close(self) -> None:
        """Close the connection."""
        if self._client:
            self._client.close()
            self._client = None

    def turn(self, stopped: Callable[[], bool], on_settled: OnSettled = lambda *_: None) -> Turn:
        """Send until nothing is pending, or something stands in the way, or `stopped` says so.

        About once an hour the outbox is held against the log, whatever is pending.
        """
        went_through = False

        def settled(delivered: int, rejected: int) -> None:
            nonlocal went_through
            went_through |= delivered + rejected > 0
            on_settled(delivered, rejected)

        with self._outbox.sending() as ours:
            if not ours:
                return Turn(busy=True)
            trouble = self._turn(stopped, settled)
            if trouble:
                moment = self._monotonic()
                if trouble.least_s and self._not_before <= moment:
                    since = self._now()
                    self._outbox.keep_rest(since, since + timedelta(seconds=trouble.least_s))
                self._not_before = moment + trouble.least_s
                self._outbox.trouble(trouble.text)
            return Turn(trouble, went_through=went_through)

    def _turn(self, stopped: Callable[[], bool], on_settled: OnSettled) -> Trouble | None:
        enrolment = self._outbox.joined()
        if enrolment != self._enrolment:
            self.close()
            self._enrolment, self._looked_at = enrolment, None
            self._not_before = self._monotonic() + self._rest_s()
        while not stopped():
            pending = bool(self._outbox.batch(self._after, 1, 1))
            due = self._is_look_due(pending=pending)
            if not (pending or due):
                break
            left = self._not_before - self._monotonic()
            if left > 0:
                return Trouble("the gateway asked to be left alone for a while; the reports wait on this device", left)
            if due and (trouble := self._look(enrolment)):
                return trouble
            # What was noticed may have made more pending.
            batch = self._outbox.batch(self._after, self._limit, BATCH_BYTES)
            if batch and (trouble := self._send(enrolment, batch, on_settled)):
                return trouble
            self._outbox.trouble("")
        if self._after and not stopped():
            self._after = 0
            return self._passed_over
        return None

    def _rest_s(self) -> float:
        """Return how much longer the gateway wants to be left alone, as another process may have been told."""
        rest, now = self._outbox.rest(), self._now()
        if rest is None or now < rest[0]:  # a clock that was set back ends it
            return 0.0
        return min(max((rest[1] - now).total_seconds(), 0.0), RETRY_AFTER_S_MAX)

    def _is_look_due(self, *, pending: bool) -> bool:
        """Tell whether to look: before the first report of ours goes out, about hourly, and when the outbox asks."""
        last = self._outbox.looked_at()
        if last is None:
            return True
        if self._looked_at is not None:
            return self._monotonic() - self._looked_at >= LOOK_AGAIN_S
        return pending or not 0 <= (self._now() - last).total_seconds() < LOOK_AGAIN_S

    def _look(self, enrolment: Enrolment) -> Trouble | None:
        """See which numbers of ours the log has, and send again what it has lost."""
        answer = self._ask(enrolment, "GET", "/v1/devices/me")
        if isinstance(answer, Trouble):
            return answer
        if answer.status != 200:
            return trouble_of(answer, self._now())
        try:
            standing = msgspec.json.decode(answer.body, type=DeviceStanding)
        except (msgspec.MsgspecError, ValueError):
            return _NOT_THE_GATEWAY
        if (standing.side, standing.unit, standing.device) != parse_source(enrolment.source):
            return Trouble(
                f"the token is another device's than {enrolment.source}: join again with the right link", long=True
            )
        for notice in self._outbox.reconcile(enrolment.source, standing, self._now()):
            self._on_notice(notice)
        self._looked_at = self._monotonic()
        return None

    def _send(
        self, enrolment: Enrolment, batch: Sequence[tuple[int, str, bytes]], on_settled: OnSettled
    ) -> Trouble | None:
        idents = [ident for _, ident, _ in batch]
        fresh = self._outbox.tried(idents)
        body = b"[" + b",".join(raw for _, _, raw in batch) + b"]"
        answer = self._ask(enrolment, "POST", "/v1/events", body)
        outcome = answer if isinstance(answer, Trouble) else read_receipt(answer, idents, self._now())
        if isinstance(outcome, Trouble) and outcome.unsent:
            self._outbox.untried(fresh)
        self._broken = self._broken + 1 if isinstance(outcome, Trouble) and outcome.broken else 0
        if not isinstance(outcome, Trouble):
            delivered, rejected = self._outbox.settle(outcome)
            on_settled(delivered, rejected)
            self._limit = min(self._limit * 2, self._most)
            if still := len(batch) - delivered - rejected:
                return Trouble(f"the gateway could not record {still} of the reports for the moment: they wait")
            return None
        if outcome.too_large:
            if len(batch) == 1:
                said = _problem(answer) if isinstance(answer, Answer) else None
                if said is None or said.code != "too-large":  # not the gateway's word, so no receipt: it waits
                    return self._pass_over(
                        batch, Trouble("something on the way to the gateway does not let a report through: it waits")
                    )
                on_settled(*self._outbox.settle([Result(id=idents[0], status="rejected", problem=said)]))
                return None
            self._most = self._limit = len(batch) // 2
            return None
        if outcome.narrow or self._broken >= BROKEN_MAX:
            self._limit = max(len(batch) // 2, 1)
            return self._pass_over(batch, outcome)
        return outcome

    def _pass_over(self, batch: Sequence[tuple[int, str, bytes]], trouble: Trouble) -> Trouble:
        """Let a report that does not get through even alone wait until all others have had their turn."""
        if len(batch) == 1:
            self._after, self._passed_over = batch[0][0], trouble
        return trouble

    def _ask(self, enrolment: Enrolment, method: str, path: str, body: bytes | None = None) -> Answer | Trouble:
        """Ask once, with limits on time and length; whatever goes wrong on the way is a Trouble."""
        import httpx  # noqa: PLC0415  # a tenth of a second that storing a report does not need

        headers = {"Authorization": f"Bearer {enrolment.token}", "Accept-Encoding": "identity"}
        if body is not None:
            headers |= {"Content-Type": BATCH_TYPE, SENT_HEADER: self._now().isoformat()}
        unreachable = Trouble(
            f"the gateway at {enrolment.address} cannot be reached, or did not answer: the reports wait on this device"
        )
        cut = threading.Timer(ANSWER_S_MAX, self._cut)  # the client's own limits begin anew with each byte
        cut.daemon = True
        cut.start()
        try:
            if self._client is None:
                timeout = httpx.Timeout(self._answer_s, connect=self._connect_s)
                # Certificates take a while to load, and a plain address has none.
                self._client = httpx.Client(
                    timeout=timeout, follow_redirects=False, verify=enrolment.address.startswith("https:")
                )
            received = bytearray()
            with self._client.stream(
                method, enrolment.address + path, headers=headers, content=body, extensions={"trace": self._trace}
            ) as response:
                for chunk in response.iter_bytes():
                    received += chunk
                    if len(received) > ANSWER_BYTES_MAX:
                        return _NOT_THE_GATEWAY
                return Answer(
                    response.status_code,
                    response.headers.get("Retry-After", ""),
                    response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
                    bytes(received),
                )
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            trouble = _no_tls(enrolment.address) if _is_about_tls(error) else unreachable
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            return trouble._replace(unsent=unsent, broken=not unsent)
        finally:
            cut.cancel()

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep the socket of a new connection: a response would give it only when its headers are whole."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")

    def _cut(self) -> None:
        """End the connection under whoever waits on it."""
        if self._socket:
            with suppress(OSError):
                # Not closed, since its descriptor could be another file's before the other thread knows; and past what
                # a TLS socket does in its own `shutdown`, which is not for two threads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def read_receipt(answer: Answer, idents: Sequence[str], now: datetime) -> tuple[Result, ...] | Trouble:
    """Return the results if the answer is a receipt for exactly these reports, else why it is none."""
    if answer.status != 202:
        return trouble_of(answer, now)
    try:
        results = msgspec.json.decode(answer.body, type=Results).results
    except (msgspec.MsgspecError, ValueError):
        return _NOT_THE_GATEWAY
    if sorted(result.id for result in results) != sorted(idents) or not all(map(_is_whole, results)):
        return Trouble("the gateway's answer names other reports than were sent: they count as not sent, and wait")
    return results


def trouble_of(answer: Answer, now: datetime) -> Trouble:
    """Say what an answer means that is no receipt."""
    said = _problem(answer)
    match answer.status:
        case 401 if said:
            return Trouble("the token is no longer valid: join again with a new link; the reports wait", long=True)
        case 403 if said:
            return Trouble(f"this token may not report ({said.detail}): join again with a unit's or a desk's link; "
                           "the reports wait", long=True)  # fmt: skip
        case 401 | 403:
            return Trouble("access is refused, by the gateway or by a network on the way: log in to the network, or "
                           "join again with a new link; the reports wait", long=True)  # fmt: skip
        case 413:
            return Trouble("too long to be taken", too_large=True)
        case 429:
            return Trouble("the gateway asks for a pause: the reports wait", read_retry_after(answer.retry_after, now))
        case 503:
            return Trouble("the gateway can record nothing at the moment: the reports wait",
                           read_retry_after(answer.retry_after, now))  # fmt: skip
        case 400 | 500:
            return _FAULT
        case status if status >= 500:
            return Trouble(f"the gateway, or the way to it, is out of order ({status}): the reports wait")
        case 404 | 405 | 415 if said:
            return Trouble(f"the gateway does not take reports here ({status}): ask those who run it; the reports wait",
                           long=True)  # fmt: skip
        case _:
            return _NOT_THE_GATEWAY


def read_retry_after(text: str, now: datetime) -> float:
    """Return the seconds of a Retry-After header, given as such or as an HTTP date; 0 without one, at most an hour."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return 0.0
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)


_NOT_THE_GATEWAY: Final = Trouble(
    "what answers is not the gateway, a network's login page perhaps: log in to the network; the reports wait"
)

_FAULT: Final = Trouble(
    "the gateway cannot make out one of the reports, or all of them: they wait; tell those who run it", narrow=True
)


def _no_tls(address: str) -> Trouble:
    return Trouble(
        f"the gateway at {address} cannot be spoken to by https: it speaks plain http, perhaps, or its certificate is "
        "not trusted here; ask for the right link, and join again; the reports wait on this device"
    )


def _is_about_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def _is_whole(result: Result) -> bool:
    """Tell whether a result says what its status promises."""
    recorded = result.status in ("recorded", "duplicate")
    return bool(result.position) and result.position is not UNSET if recorded else result.problem is not UNSET


def _problem(answer: Answer) -> Problem | None:
    if answer.media_type != PROBLEM_TYPE:
        return None
    try:
        return msgspec.json.decode(answer.body, type=Problem)
    except (msgspec.MsgspecError, ValueError):
        return None
