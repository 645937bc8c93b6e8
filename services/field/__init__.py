"""The field client: what a patrol app reports with, and loses nothing.

    from services.field import FieldUnit

    FieldUnit.join(outbox, link)                  # once, with the link in the enrolment's QR code
    with FieldUnit(outbox) as unit:               # a sender runs in the background until the block ends
        report = unit.report(ApprehensionData("koper", (CitizenshipCount("SYR", 4),)))

`report` returns once the report is on the device's disk, with or without a network. What happens to it then is in
`pending`, `rejected` and `status`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from schemas.events import WithdrawalData
from schemas.identity import RANDOM_BITS, uuid7
from schemas.vocabulary import WithdrawalReason
from services.field.link import read_link
from services.field.outbox import (
    Data,
    Notice,
    NotJoinedError,
    Outbox,
    OutboxError,
    RefusedError,
    Report,
    State,
    Status,
)
from services.field.sender import Pauses, Sender, Trouble, Turn
from services.runtime import clock, entropy
from services.runtime.errors import FieldtallyError

__all__ = ["Data", "FieldUnit", "NotJoinedError", "Notice", "OutboxError", "RefusedError", "Report", "State", "Status"]

_LOOK_S: Final = 10.0  # other processes may put reports into the same outbox
_BUSY_S: Final = 0.05
_FAULT: Final = Trouble("a fault in Fieldtally itself keeps the sender from sending: the reports wait", long=True)


class FieldUnit:
    """A device that reports. May be used from several threads, and beside other processes with the same outbox.

    Not to be carried over a fork. `start`, or entering it as a context, sends in the background; without, `flush` does.

    Args:
        outbox: the file of the outbox, on a local disk.
        on_notice: called with a sentence that a person should read, such as that the outbox was restored from an old
            copy; it is in `status` too. From whichever thread is sending; it must not raise.
        connect_s: how long to wait for a connection.
        answer_s: how long to wait for an answer.
        now: the clock; this and what follows are there for tests.
        monotonic: seconds that only go on.
        random_bytes: for identifiers.
        jitter: a number from 0 up to 1.
        pause: waits until the event is set or the seconds have passed.

    Raises:
        NotJoinedError: this outbox has no address and token yet; `join` first.
        OutboxError: the file cannot be used.

    """

    def __init__(
        self,
        outbox: Path | str,
        *,
        on_notice: Callable[[str], object] = lambda _: None,
        connect_s: float = 5.0,
        answer_s: float = 20.0,
        now: Callable[[], datetime] = clock.now,
        monotonic: Callable[[], float] = clock.monotonic,
        random_bytes: Callable[[int], bytes] = entropy.random_bytes,
        jitter: Callable[[], float] = entropy.jitter,
        pause: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._outbox = Outbox(Path(outbox))
        try:
            self._outbox.joined()
        except BaseException:
            self._outbox.close()
            raise
        self._now = now
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        self._pause = pause
        self._sender = Sender(
            self._outbox, now=now, monotonic=monotonic, on_notice=on_notice, connect_s=connect_s, answer_s=answer_s
        )
        self._jitter = jitter
        self._pauses = Pauses(jitter)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def join(cls, outbox: Path | str, link: str) -> None:
        """Keep an enrolment link's address, token and source in an outbox, which is made if there is none. No network.

        Joining again replaces token and address; reports that wait go out with the new ones.

        Raises:
            UsageError: this is no enrolment link.
            RefusedError: the outbox holds undelivered reports of another unit.

        """
        enrolment = read_link(link)
        opened = Outbox(Path(outbox), make=True)
        try:
            opened.join(enrolment)
        finally:
            opened.close()

    # reporting

    def report(self, data: Data, *, subject: str = "", time: datetime | None = None) -> Report:
        """Report something; it is on the disk when this returns.

        Args:
            data: what happened, such as an `ApprehensionData` of `schemas.events`.
            subject: the operation; empty for work outside any.
            time: when it happened, with an offset; now, if left out.

        Raises:
            RefusedError: it breaks a rule, which the text names. Nothing was stored; correct it and report again.
            OutboxError: the disk does not take it. Nothing was stored.

        """
        return self._store(data, subject, time, None)

    def amend(
        self, ident: UUID | str, data: Data, *, subject: str | None = None, time: datetime | None = None
    ) -> Report:
        """Say what is right instead, with the whole new content; `ident` may be the original's or an amendment's.

        If the gateway has rejected the report, it is not in the log: then this is a new report in its place, under its
        number, and the rejected one becomes `corrected`. Should it be in the log all the same, because the answer to an
        earlier attempt was lost, it is amended.

        Args:
            ident: which report.
            data: the whole new content.
            subject: the operation; as it was, if left out.
            time: when it happened; as it was, if left out. Both must be given for a report from another outbox.

        Raises:
            RefusedError: it breaks a rule, or there is nothing to amend. Nothing was stored.

        """
        amends = _uuid(ident)
        before = self._outbox.latest(amends)
        if before is None and (subject is None or time is None):
            raise RefusedError(
                f"report {amends} is not in this outbox: to amend it, say its operation (empty for none) and its time "
                "too, since an amendment carries everything"
            )
        if before is not None:
            event = before.event
            subject = event.subject if subject is None else subject
            time = event.time if time is None else time
        return self._store(data, subject, time, amends)

    def withdraw(self, ident: UUID | str, reason: WithdrawalReason) -> Report:
        """Take a report back: it no longer counts. An amendment like any other.

        Raises:
            RefusedError: the reason is none of those there are, or the gateway has rejected the report (`discard` it).

        """
        amends = _uuid(ident)
        before = self._outbox.latest(amends)
        event = before.event if before else None
        return self._store(
            WithdrawalData(reason), event.subject if event else "", event.time if event else None, amends
        )

    def discard(self, ident: UUID | str) -> Report:
        """Set a rejected report aside, if it is not to be corrected; it stays in the outbox, as `discarded`.

        Raises:
            RefusedError: there is none of this id, it is not rejected, or it may be in the log (`withdraw` it).

        """
        return self._outbox.discard(_uuid(ident))

    # looking

    def find(self, ident: UUID | str) -> Report:
        """Return one report as it stands now; RefusedError if there is none of this id."""
        return self._outbox.find(_uuid(ident))

    def pending(self) -> list[Report]:
        """Return the reports that are on their way, in their order."""
        return self._outbox.reports("pending")

    def rejected(self) -> list[Report]:
        """Return the reports that the gateway has rejected, each with its problem: to `amend` or to `discard`."""
        return self._outbox.reports("rejected")

    def discarded(self) -> list[Report]:
        """Return the reports that a person has set aside."""
        return self._outbox.reports("discarded")

    def status(self) -> Status:
        """Return how the outbox stands, and in words what keeps it from sending."""
        return self._outbox.status()

    def numbered(self, number: int) -> Report:
        """Return the report that has a number of this device; RefusedError if there is none, or more than one."""
        return self._outbox.numbered(number)

    def history(self, count_max: int | None = None) -> list[Report]:
        """Return the reports of every state, the latest first; no more than `count_max` of them, if it is given."""
        return self._outbox.history(count_max)

    def dismiss(self) -> int:
        """Put away the notices of `status`, since somebody has read them; return how many there were."""
        return self._outbox.dismiss()

    # sending

    def flush(self, timeout_s: float = 30.0, on_settled: Callable[[int, int], object] = lambda *_: None) -> bool:
        """Send what is pending now; return whether nothing is pending any more.

        At least one attempt is made, whatever pause was under way, unless the gateway has asked for one. Further ones
        follow with growing pauses while they end within `timeout_s`; an answer under way is waited for beyond it. Does
        not raise for want of a network: `status().trouble` says what was in the way.

        With nothing pending the gateway is asked, about once an hour, whether the log has lost anything.

        Args:
            timeout_s: for how long to try.
            on_settled: called for each answer that settles reports, with how many were delivered and how many rejected.

        """
        ends_at = self._monotonic() + timeout_s
        pauses = Pauses(self._jitter)
        while True:
            turn = self._sender.turn(self._closing.is_set, on_settled)
            if not self._outbox.waiting():
                return True
            if turn.went_through:
                pauses.reset()
            pause_s = _BUSY_S if turn.busy else pauses.next(turn.trouble) if turn.trouble else 0.0
            if self._closing.is_set() or self._monotonic() + pause_s > ends_at:
                return False
            self._pause(self._closing, pause_s)

    def start(self) -> None:
        """Begin to send in the background, if that has not begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fieldtally-sender", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the sender and close the outbox. What is pending stays so, and goes out with the next start.

        An answer under way is waited for, up to `timeout_s`; after that it is left to itself.
        """
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return  # it still holds the outbox, which survives anything; the report counts as not sent
        self._sender.close()
        self._outbox.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # inside

    def _store(self, data: Data, subject: str | None, time: datetime | None, amends: UUID | None) -> Report:
        now = self._now()
        ident = uuid7(int(now.timestamp() * 1_000), int.from_bytes(self._random_bytes(RANDOM_BITS // 8)))
        moment = now.replace(microsecond=0) if time is None else time
        report = self._outbox.store(data, moment=moment, ident=ident, subject=subject, amends=amends)
        self._wake.set()
        return report

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            try:
                turn = self._sender.turn(self._closing.is_set)
            except FieldtallyError as error:  # the outbox, which may be well again after a while (a full disk)
                turn = Turn(Trouble(str(error)))
            except Exception:  # noqa: BLE001  # a sender that has ended would be noticed by nobody
                turn = Turn(_FAULT)
            if turn.trouble is None or turn.went_through:
                self._pauses.reset()
            pause_s = self._pauses.next(turn.trouble) if turn.trouble else _BUSY_S if turn.busy else _LOOK_S
            if self._closing.is_set():
                return
            self._pause(self._wake, pause_s)


def _uuid(ident: UUID | str) -> UUID:
    try:
        return ident if isinstance(ident, UUID) else UUID(ident)
    except (ValueError, TypeError, AttributeError) as error:
        raise RefusedError(f"{ident!r} is no id of a report") from error
