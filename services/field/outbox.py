"""The outbox: a device's reports on its own disk, before the gateway has them and after. One SQLite file.

What `store` has returned for is on the disk and is never dropped: a report only goes from one state to another. Its
bytes are written once, canonically, and whatever is sent later are these bytes. Several processes may use one outbox:
numbers and revisions are taken inside one immediate transaction.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct

from schemas import codec
from schemas.events import (
    TYPE_PREFIX,
    ApprehensionData,
    CustodyData,
    Event,
    NilReportData,
    OpeningBalanceData,
    OperationClosedData,
    OperationOpenedData,
    SmugglerArrestData,
    WithdrawalData,
)
from schemas.http import EVENT_BYTES_MAX, DeviceStanding, Problem, Result
from schemas.vocabulary import REVISION_MAX, parse_source
from services.field.link import Enrolment
from services.runtime.errors import FieldtallyError, UsageError

Data = (
    OperationOpenedData
    | OperationClosedData
    | ApprehensionData
    | SmugglerArrestData
    | CustodyData
    | OpeningBalanceData
    | NilReportData
    | WithdrawalData
)
"""What a report says; its type decides the event's."""

State = Literal["pending", "delivered", "rejected", "corrected", "discarded"]
"""pending: on its way. delivered: in the log. rejected: kept for correction. corrected: by a later one. discarded: a
person has set it aside."""

_EVENT_OF: Final[dict[type, type]] = {get_type_hints(kind)["data"]: kind for kind in get_args(Event)}

NUMBER_PLAUSIBLE_MAX: Final = 1_000_000_000
"""No device makes a thousand million reports: a higher number in the log is a fault, or somebody else's."""

_VERSION: Final = 1
_BUSY_S: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE joined (
    one INTEGER PRIMARY KEY CHECK (one = 1), address TEXT NOT NULL, token TEXT NOT NULL, source TEXT NOT NULL
);
CREATE TABLE devices (source TEXT PRIMARY KEY, last_number INTEGER NOT NULL);
CREATE TABLE reports (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    original TEXT NOT NULL,
    revision INTEGER NOT NULL,
    event BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'rejected', 'corrected', 'discarded')),
    tried INTEGER NOT NULL DEFAULT 0,
    again INTEGER NOT NULL DEFAULT 0,
    position TEXT NOT NULL DEFAULT '',
    problem BLOB,
    corrected_by TEXT NOT NULL DEFAULT ''
);
CREATE INDEX reports_pending ON reports (place) WHERE state = 'pending';
CREATE INDEX reports_original ON reports (original);
CREATE TABLE notices (place INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class OutboxError(FieldtallyError):
    """The outbox's file cannot be read or written. What was to be stored is not; the text names the file and why."""

    exit_code = 2


class NotJoinedError(UsageError):
    """The outbox has no address and no token yet: `FieldUnit.join` with an enrolment link comes first."""


class RefusedError(UsageError):
    """A report breaks a rule, so it was not stored. `pointer` is the field's path; the caller corrects it."""

    def __init__(self, text: str, pointer: str = "$") -> None:
        super().__init__(text)
        self.pointer = pointer


class Report(Struct, frozen=True, kw_only=True):
    """A report as the outbox holds it.

    `amends` is the original's id where this is an amendment. `position` is where the log holds it once it is delivered;
    `problem` says why it was rejected. `in_doubt`: it was rejected, and may be in the log all the same, so it is to be
    amended or withdrawn, and cannot be discarded. `raw` are the bytes that are sent.
    """

    id: UUID
    number: int
    kind: str
    amends: UUID | None
    revision: int
    state: State
    position: str
    problem: Problem | None
    in_doubt: bool
    raw: bytes

    @property
    def event(self) -> Event:
        """The event that the bytes are."""
        return codec.decode(self.raw)


class Notice(Struct, frozen=True):
    """Something that a person should know, and when it was noticed."""

    at: datetime
    text: str


class Status(Struct, frozen=True, kw_only=True):
    """How an outbox stands. `trouble` says in words why nothing goes out, and is empty while it does.

    `clock_off_s` is by how many seconds this device's clock is fast, as the gateway said; 0 up to two minutes.
    """

    address: str
    source: str
    pending: int
    delivered: int
    rejected: int
    corrected: int
    discarded: int
    last_number: int
    trouble: str
    clock_off_s: int
    notices: tuple[Notice, ...]


class Outbox:
    """One outbox, open. May be used from several threads; not carried over a fork.

    Delivered reports stay in it: they can be amended without a network, and sent again should the log lose them.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        """Open it; NotJoinedError if there is none and `make` does not say to make one."""
        self.path = path
        self._guard = threading.RLock()
        if make:
            _make(path)
        elif not path.exists():
            raise NotJoinedError(f"no outbox at {path}: join first, with the link that `devices enrol` shows")
        with _words(path):
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    # who we are

    def join(self, enrolment: Enrolment) -> None:
        """Keep address, token and source; RefusedError if reports of another unit have not all been delivered."""
        with self._transaction() as db:
            before = db.execute("SELECT source FROM joined").fetchone()
            unit = parse_source(enrolment.source)[:2]
            if before and parse_source(before["source"])[:2] != unit:
                waiting, rejected = (_count(db, f"state = '{state}'") for state in ("pending", "rejected"))
                if waiting + rejected:
                    first = [f"send what waits ({waiting}) with a flush"] * bool(waiting)
                    first += [f"correct or discard what was rejected ({rejected})"] * bool(rejected)
                    raise RefusedError(
                        f"{self.path} holds undelivered reports of {before['source']}: {' and '.join(first)}, or take "
                        f"another outbox, in another data folder, for {enrolment.source}"
                    )
            db.execute("INSERT OR REPLACE INTO joined VALUES (1, ?, ?, ?)", enrolment)
            db.execute("INSERT OR IGNORE INTO devices VALUES (?, 0)", (enrolment.source,))
            for learnt in ("trouble", "looked_at", "rest"):
                _set_fact(db, learnt, "")

    def joined(self) -> Enrolment:
        """Return address, token and source; NotJoinedError if there are none."""
        with self._reading() as db:
            row = db.execute("SELECT address, token, source FROM joined").fetchone()
        if row is None:
            raise NotJoinedError(f"{self.path} has no token yet: join first, with the link that `devices enrol` shows")
        return Enrolment(*row)

    # reports

    def store(
        self, data: Data, *, moment: datetime, ident: UUID, subject: str | None, amends: UUID | None = None
    ) -> Report:
        """Store a report; it is on the disk when this returns.

        With `amends`, in the place of that one: as an amendment of its original, or as a new report if the gateway
        has rejected all of it, since then there is nothing in the log to amend. In doubt as an amendment: that counts
        once, whether the log has the original or not.

        Raises:
            RefusedError: it breaks a rule of its type.
            OutboxError: the disk does not take it.

        """
        try:
            with self._transaction() as db:
                return self._store(db, data, moment, ident, subject, amends)
        except OutboxError as error:
            raise OutboxError(f"{error}; the report was not stored") from error

    def latest(self, ident: UUID) -> Report | None:
        """Return the latest version of a report, given the id of any of them; None if it is not of this outbox."""
        with self._reading() as db:
            versions = _versions(db, str(ident))
        return _report(versions[-1]) if versions else None

    def find(self, ident: UUID) -> Report:
        """Return one report; RefusedError if there is none of this id."""
        with self._reading() as db:
            row = _row(db, str(ident))
        if row is None:
            raise RefusedError(f"no report of this outbox has the id {ident}")
        return _report(row)

    def numbered(self, number: int) -> Report:
        """Return the report that has a number; RefusedError if there is none, or if several reports have it."""
        with self._reading() as db:
            rows = db.execute("SELECT * FROM reports WHERE number = ? ORDER BY place", (number,)).fetchall()
            different = {_versions(db, row["id"])[-1]["original"] for row in rows}
        if not rows:
            raise RefusedError(f"no report of this outbox has the number {number}")
        if len(different) > 1:
            idents = " and ".join(row["id"] for row in rows)
            raise RefusedError(
                f"several reports of this outbox have the number {number}: say which by its id, {idents}"
            )
        return _report(next((row for row in rows if row["state"] == "rejected"), rows[-1]))

    def history(self, count_max: int | None) -> list[Report]:
        """Return the reports of every state, the latest first; all of them without a limit."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM reports ORDER BY place DESC LIMIT ?", (-1 if count_max is None else count_max,)
            ).fetchall()
        return [_report(row) for row in rows]

    def dismiss(self) -> int:
        """Put the notices away; return how many there were."""
        with self._transaction() as db:
            return db.execute("DELETE FROM notices").rowcount

    def discard(self, ident: UUID) -> Report:
        """Set a rejected report aside; it stays in the outbox, as discarded."""
        with self._transaction() as db:
            row = _row(db, str(ident))
            if row is None:
                raise RefusedError(f"no report of this outbox has the id {ident}")
            if row["state"] == "rejected" and _in_doubt(row):
                raise RefusedError(f"report {ident} may be in the log, although it was rejected: withdraw it")
            if row["state"] != "rejected":
                raise RefusedError(
                    f"report {ident} is {row['state']}: only a rejected one can be discarded, withdraw it"
                )
            db.execute("UPDATE reports SET state = 'discarded' WHERE id = ?", (str(ident),))
        return self.find(ident)

    def reports(self, state: State) -> list[Report]:
        """Return the reports of a state, in the order in which they were stored."""
        with self._reading() as db:
            return [
                _report(row) for row in db.execute("SELECT * FROM reports WHERE state = ? ORDER BY place", (state,))
            ]

    def status(self) -> Status:
        """Return how it stands."""
        enrolment = self.joined()
        with self._reading() as db:
            count = dict(db.execute("SELECT state, count(*) FROM reports GROUP BY state").fetchall())
            facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
            notices = db.execute("SELECT at, text FROM notices ORDER BY place").fetchall()
            last = _last_number(db, enrolment.source)
        return Status(
            address=enrolment.address,
            source=enrolment.source,
            **{state: count.get(state, 0) for state in get_args(State)},
            last_number=last,
            trouble=facts.get("trouble", ""),
            clock_off_s=int(facts.get("clock_off_s", "0")),
            notices=tuple(Notice(datetime.fromisoformat(at), text) for at, text in notices),
        )

    # for the sender

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Yield whether we alone may send now. The kernel drops the lock however its holder ends."""
        try:
            lock = os.open(f"{self.path}.sending", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutboxError(f"{self.path}.sending cannot be used: {_of_system(error)}") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def waiting(self) -> int:
        """Return how many reports are pending."""
        with self._reading() as db:
            return _count(db, "state = 'pending'")

    def batch(self, after: int, count_max: int, bytes_max: int) -> list[tuple[int, str, bytes]]:
        """Return the first pending reports behind a place, as place, id and bytes; at least one if there is any."""
        chosen: list[tuple[int, str, bytes]] = []
        size = 1
        with self._reading() as db:
            for place, ident, raw in db.execute(
                "SELECT place, id, event FROM reports WHERE state = 'pending' AND place > ? ORDER BY place LIMIT ?",
                (after, count_max),
            ):
                size += len(raw) + 1
                if chosen and size > bytes_max:
                    break
                chosen.append((place, ident, raw))
        return chosen

    def tried(self, idents: Sequence[str]) -> list[str]:
        """Note, before they are sent, that these may reach the gateway from now on: once, or more than once.

        Returns those of which this was not known before; for `untried`, should nothing have left the device.
        """
        some = f"id IN ({','.join('?' * len(idents))})"  # only question marks
        with self._reading() as db:
            rows = db.execute(f"SELECT id FROM reports WHERE {some} AND tried < 2", idents).fetchall()  # noqa: S608
        fresh = [row["id"] for row in rows]
        self._count_attempt(fresh, 1)
        return fresh

    def untried(self, fresh: Sequence[str]) -> None:
        """Take back what `tried` has noted: there was no connection, so nothing has reached anybody."""
        self._count_attempt(fresh, -1)

    def settle(self, results: Sequence[Result]) -> tuple[int, int]:
        """Keep what became of reports; return how many were delivered, and how many rejected.

        The others are still pending, for a reason that passes.

        If one is rejected that may be in the log all the same, or one is recorded that the log had lost, the log is to
        be asked at once: no look counts as made.
        """
        clock_off_s = delivered = rejected = 0
        with self._transaction() as db:
            for result in results:
                if result.clock_off_s is not UNSET:
                    clock_off_s = result.clock_off_s
                position = "" if result.position is UNSET else result.position
                if result.status in ("recorded", "duplicate"):
                    _settle(db, result.id, "delivered", position, None)
                    delivered += 1
                elif result.problem is not UNSET and not result.problem.retryable:
                    _settle(db, result.id, "rejected", position, msgspec.json.encode(result.problem))
                    rejected += 1
            if any(_is_to_be_asked(db, result.id) for result in results):
                _set_fact(db, "looked_at", "")
            _set_fact(db, "clock_off_s", str(clock_off_s))
        return delivered, rejected

    def trouble(self, text: str) -> None:
        """Keep why nothing goes out, or, empty, that it does."""
        if self._fact("trouble") != text:  # a write costs the disk a turn
            with self._transaction() as db:
                _set_fact(db, "trouble", text)

    def rest(self) -> tuple[datetime, datetime] | None:
        """Return since when and until when the gateway asked to be left alone, if it ever did."""
        since, _, until = self._fact("rest").partition(" ")
        return (datetime.fromisoformat(since), datetime.fromisoformat(until)) if until else None

    def keep_rest(self, since: datetime, until: datetime) -> None:
        """Keep that the gateway asked to be left alone, for other processes too."""
        with self._transaction() as db:
            _set_fact(db, "rest", f"{since.isoformat()} {until.isoformat()}")

    def looked_at(self) -> datetime | None:
        """Return when this outbox was last held against the log, by whichever process; None if it is to be now."""
        text = self._fact("looked_at")
        return datetime.fromisoformat(text) if text else None

    def reconcile(self, source: str, standing: DeviceStanding, at: datetime) -> list[str]:
        """Hold the outbox against what the log has of this device; return what a person should know, kept as notices.

        Numbers that this file never sent mean that it was restored from an old copy, or is new on a device that is not:
        numbering goes on above them, unless no device comes to such a number. Delivered reports that the log does not
        have are pending again: the standing covers the log to its end, and nothing is delivered while it is asked for.
        For the same reason what was rejected is no longer in doubt if the log has not got its number.
        """
        notices = []
        with self._transaction() as db:
            last = _last_number(db, source)
            highest = _plausible_highest(standing)
            if highest != standing.highest and _fact(db, "implausible") != str(standing.highest):
                _set_fact(db, "implausible", str(standing.highest))
                notices.append(
                    f"The gateway holds a report of {source} with number {standing.highest}, which no device comes to: "
                    "a fault, or another device of the unit, made it. Nothing is lost, and numbering stays as it is; "
                    "tell those who run the gateway."
                )
            used = [
                number
                for (number,) in db.execute(
                    "SELECT number FROM reports WHERE source = ? AND number <= ? AND tried = 0 AND state = 'pending'",
                    (source, highest),
                )
                if not _missing(standing, number)
            ]
            if highest > last or used:
                how = "is new on this device" if last == 0 else "was restored from an old copy"
                known = f"knows of {last}" if not used else f"never sent number {used[0]}"
                notices.append(
                    f"This outbox {how}: the gateway has reports of {source} up to number {highest}, the outbox "
                    f"{known}. What the gateway has counts and stays; what is pending is sent (again) and counts once; "
                    f"new reports are numbered from {max(last, highest) + 1}. Enter nothing again, unless you know "
                    "that the log has not got it: only a report that another copy of this outbox held and had not sent."
                )
                db.execute("UPDATE devices SET last_number = ? WHERE source = ?", (max(last, highest), source))
                # The lost copy may have sent it, by the same id; and it is no second sign of a restored copy.
                db.execute(
                    "UPDATE reports SET tried = max(tried, 1) WHERE source = ? AND number <= ?",
                    (source, highest),
                )
            lost, back = [], []
            for ident, number, again in db.execute(
                "SELECT id, number, again FROM reports WHERE source = ? AND state = 'delivered'", (source,)
            ):
                if not again and _missing(standing, number):
                    lost.append((ident,))
                elif again and not _missing(standing, number):
                    back.append((ident,))
            # Once only, until a look has found it: a number that is never counted must not have its report sent for
            # ever.
            db.executemany("UPDATE reports SET state = 'pending', again = 1 WHERE id = ?", lost)
            db.executemany("UPDATE reports SET again = 0 WHERE id = ?", back)
            if lost:
                # The log may have lost these too. Nobody can ask: a token learns of its own device only.
                earlier = db.execute(
                    "UPDATE reports SET state = 'pending' WHERE state = 'delivered' AND source != ? AND source GLOB ?",
                    (source, f"{source.rpartition('/')[0]}/*"),
                ).rowcount
                notices.append(
                    f"The log has lost reports of {source} that it had recorded ({len(lost)}): they are sent again, "
                    "and nothing has to be entered again."
                    + f" So is what this outbox had sent as another device of the unit ({earlier}), since the gateway "
                    "cannot be asked for it; it counts once." * bool(earlier)
                )
            doubtful = db.execute(
                "SELECT id, number FROM reports WHERE source = ? AND tried > 1 AND state IN ('rejected', 'corrected')",
                (source,),
            ).fetchall()
            db.executemany("UPDATE reports SET tried = 1 WHERE id = ?",
                           [(ident,) for ident, number in doubtful if _missing(standing, number)])  # fmt: skip
            db.executemany("INSERT INTO notices (at, text) VALUES (?, ?)",
                           [(at.isoformat(), text) for text in notices])  # fmt: skip
            _set_fact(db, "looked_at", at.isoformat())
        return notices

    # inside

    def _count_attempt(self, idents: Sequence[str], step: int) -> None:
        if idents:
            with self._transaction() as db:
                db.executemany("UPDATE reports SET tried = tried + ? WHERE id = ?", [(step, each) for each in idents])

    def _store(
        self,
        db: sqlite3.Connection,
        data: Data,
        moment: datetime,
        ident: UUID,
        subject: str | None,
        amends: UUID | None,
    ) -> Report:
        source = self.joined().source
        kind, name = _kind(data)
        versions = _versions(db, str(amends)) if amends else []
        _refuse_another_kind(name, versions)
        original, revision, number = str(ident), 0, 0
        rejected = [version for version in versions if version["state"] == "rejected"]
        if amends and (not versions or _may_be_in_log(versions)):
            original = versions[0]["original"] if versions else str(amends)
            revision = 1 + max((version["revision"] for version in versions), default=0)
            if revision > REVISION_MAX:
                raise RefusedError(f"report {original} has been amended {REVISION_MAX:,} times: no more can be")
        elif amends:
            if not rejected:
                raise RefusedError(f"report {amends} was discarded: make a new report")
            if isinstance(data, WithdrawalData):
                raise RefusedError(f"report {amends} was rejected, so there is nothing to withdraw: discard it")
        for version in rejected:
            # The log has never seen this number: with the correction under it, nobody waits for it for ever.
            if not number and version["source"] == source and not _in_doubt(version):
                number = version["number"]
        if not number:
            number = _last_number(db, source) + 1
            db.execute("UPDATE devices SET last_number = ? WHERE source = ?", (number, source))
        raw = _canonical(
            kind, name, data, source=source, ident=ident, number=number, moment=moment, subject=subject or "",
            amends=UUID(original) if revision else None, revision=revision,
        )  # fmt: skip
        db.execute(
            "INSERT INTO reports (id, source, number, kind, original, revision, event, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'pending')",
            (str(ident), source, number, name, original, revision, raw),
        )
        db.executemany(
            "UPDATE reports SET state = 'corrected', corrected_by = ? WHERE id = ?",
            [(str(ident), version["id"]) for version in rejected],
        )
        return _report(db.execute("SELECT * FROM reports WHERE id = ?", (str(ident),)).fetchone())

    def _prepare(self) -> None:
        with _words(self.path):
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA fullfsync = ON")  # macOS: to the disk, not only to its cache
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise OutboxError(f"{self.path} was made by another version of Fieldtally (format {version}): use that")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _words(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # it has ended already if that was what failed
                    self._db.execute("ROLLBACK")
                raise

    def _fact(self, name: str) -> str:
        with self._reading() as db:
            return _fact(db, name)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _words(self.path):
            yield self._db


def _make(path: Path) -> None:
    """Make an empty file that only its owner can read; SQLite gives the files beside it the same rights."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OutboxError(f"no outbox can be made at {path}: {_of_system(error)}") from error


def _of_system(error: OSError) -> str:
    return f"{error.strerror}; see to its disk and to the rights of its folder, or name another folder"


@contextmanager
def _words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        why = _WHY.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error))  # the rest of the code is details
        raise OutboxError(f"the outbox {path} cannot be used: {why}") from error


_MAY_NOT_WRITE: Final = "this user may not write it, or make files beside it: set the rights of the file and its folder"
_WHY: Final = {
    sqlite3.SQLITE_FULL: "its disk is full: make room, and try again",
    sqlite3.SQLITE_READONLY: _MAY_NOT_WRITE,
    sqlite3.SQLITE_CANTOPEN: _MAY_NOT_WRITE,
    sqlite3.SQLITE_PERM: _MAY_NOT_WRITE,
    sqlite3.SQLITE_BUSY: "another program keeps it to itself: end that, and try again",
    sqlite3.SQLITE_IOERR: "its disk cannot be read or written: look after the disk, and try again",
    sqlite3.SQLITE_NOTADB: "it is no outbox: name another file",
    sqlite3.SQLITE_CORRUPT: "it is damaged: set the file aside for those who can repair it, and join again",
}


def _kind(data: Data) -> tuple[Any, str]:
    """Return the event of which this is the data, and the short name of its type."""
    kind: Any = _EVENT_OF.get(type(data))
    if kind is None:
        raise RefusedError(f"{type(data).__name__} is nothing that can be reported: take one of schemas.events")
    return kind, str(kind.__struct_config__.tag).removeprefix(TYPE_PREFIX).removesuffix(".v1")


def _refuse_another_kind(name: str, versions: Sequence[sqlite3.Row]) -> None:
    """A report stays what it is; what was reported as the wrong kind is taken back, and reported anew."""
    before = next((version["kind"] for version in versions if version["kind"] != "withdrawal"), name)
    if name not in (before, "withdrawal"):
        raise RefusedError(
            f"report {versions[0]['id']} is of kind {before}, so it is amended by another {before} or a withdrawal, "
            f"not by {name}: withdraw it (discard it, if it was rejected), and make a new report"
        )


def _canonical(
    kind: Any,
    name: str,
    data: Data,
    *,
    source: str,
    ident: UUID,
    number: int,
    moment: datetime,
    subject: str,
    amends: UUID | None,
    revision: int,
) -> bytes:
    """Return the bytes of an event; whatever the codec would refuse is refused here."""
    for field, value, wanted, words in (
        ("time", moment, datetime, "a datetime with an offset"),
        ("subject", subject, str, "a text, empty for none"),
    ):
        if not isinstance(value, wanted):
            raise RefusedError(f"this {name} was not stored: {field}: {words}, no {type(value).__name__}", f"$.{field}")
    try:
        # Constructing a struct checks no types; what is written and read again has been held to every rule.
        event = kind(
            specversion="1.0",
            id=ident,
            source=source,
            reportno=number,
            side=parse_source(source).side,
            subject=subject,
            time=moment,
            amends=amends or UNSET,
            revision=revision,
            data=data,
        )
        raw = codec.encode(codec.decode(codec.encode(event)))
    except codec.EventError as error:
        place = error.pointer.removeprefix("$").removeprefix(".")
        text = f"this {name} was not stored: {place + ': ' if place else ''}{error.rule}"
        raise RefusedError(text, error.pointer) from error
    except (TypeError, AttributeError) as error:  # their texts are about Python, not about the report
        raise RefusedError(
            f"this {name} was not stored: a value in it is of the wrong type; schemas.events says what each field takes"
        ) from error
    except (ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise RefusedError(f"this {name} was not stored: {error}") from error
    if len(raw) > EVENT_BYTES_MAX:
        raise RefusedError(f"this {name} was not stored: longer than {EVENT_BYTES_MAX:,} bytes")
    return raw


def _may_be_in_log(versions: Sequence[sqlite3.Row]) -> bool:
    """Tell whether there is, or may be, anything in the log to amend: an original of another outbox may always be."""
    here = any(version["revision"] == 0 for version in versions)
    return not here or any(version["state"] in ("pending", "delivered") or _in_doubt(version) for version in versions)


def _in_doubt(version: sqlite3.Row) -> bool:
    """Tell whether a rejected report may be in the log all the same.

    It is not if it was rejected the first time it was sent. If an earlier answer was lost, it may have been recorded
    then, and rejected by what holds now; until a look finds that the log has not got its number. A conflict says that
    the log has something under its key.
    """
    if version["state"] in ("pending", "delivered"):
        return False
    problem = msgspec.json.decode(version["problem"], type=Problem)
    return version["tried"] > 1 or problem.code == "conflict"


def _versions(db: sqlite3.Connection, ident: str) -> list[sqlite3.Row]:
    """Return all versions of a report by the id of any; of its correction, if that is another report."""
    while True:
        row = _row(db, ident)
        original = row["original"] if row else ident
        versions = db.execute("SELECT * FROM reports WHERE original = ? ORDER BY place", (original,)).fetchall()
        states = {version["state"] for version in versions}
        later = {version["corrected_by"] for version in versions} - {version["id"] for version in versions} - {""}
        if not later or states & {"pending", "delivered", "rejected"}:
            return versions
        (ident,) = later  # all that was rejected is corrected at once, by one


def _row(db: sqlite3.Connection, ident: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM reports WHERE id = ?", (ident,)).fetchone()
    return row


def _report(row: sqlite3.Row) -> Report:
    return Report(
        id=UUID(row["id"]),
        number=row["number"],
        kind=row["kind"],
        amends=UUID(row["original"]) if row["revision"] else None,
        revision=row["revision"],
        state=row["state"],
        position=row["position"],
        problem=msgspec.json.decode(row["problem"], type=Problem) if row["problem"] else None,
        in_doubt=row["state"] == "rejected" and _in_doubt(row),
        raw=row["event"],
    )


def _settle(db: sqlite3.Connection, ident: str, state: State, position: str, problem: bytes | None) -> None:
    db.execute(
        "UPDATE reports SET state = ?, position = ?, problem = ? WHERE id = ? AND state = 'pending'",
        (state, position, problem, ident),
    )


def _is_to_be_asked(db: sqlite3.Connection, ident: str) -> bool:
    """Tell whether the log's answer would settle what a receipt has left open."""
    row = _row(db, ident)
    if row is None:
        return False
    return bool(row["tried"] > 1 if row["state"] == "rejected" else row["state"] == "delivered" and row["again"])


def _set_fact(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _fact(db: sqlite3.Connection, name: str) -> str:
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return str(row["value"]) if row else ""


def _last_number(db: sqlite3.Connection, source: str) -> int:
    row = db.execute("SELECT last_number FROM devices WHERE source = ?", (source,)).fetchone()
    last = int(row["last_number"]) if row else 0
    if last > NUMBER_PLAUSIBLE_MAX:  # followed once, when any number was; a report must not fail for it
        (last,) = db.execute(
            "SELECT ifnull(max(number), 0) FROM reports WHERE source = ? AND number < ?", (source, NUMBER_PLAUSIBLE_MAX)
        ).fetchone()
    return last


def _count(db: sqlite3.Connection, condition: str) -> int:
    (number,) = db.execute(f"SELECT count(*) FROM reports WHERE {condition}").fetchone()  # noqa: S608  # ours
    return int(number)


def _plausible_highest(standing: DeviceStanding) -> int:
    """Return the highest number in the log that the device may have come to."""
    highest = standing.highest
    for first, _ in sorted(standing.missing, reverse=True):
        if highest > NUMBER_PLAUSIBLE_MAX:
            highest = first - 1
    return highest if highest <= NUMBER_PLAUSIBLE_MAX else 0


def _missing(standing: DeviceStanding, number: int) -> bool:
    return number > standing.highest or any(first <= number <= last for first, last in standing.missing)
