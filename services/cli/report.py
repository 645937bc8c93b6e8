"""`report`: publish one report through this device's outbox, with a network or without; look at the outbox, send it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from typing import Any, Final, assert_never, cast, get_args

import click
import msgspec

from schemas.events import (
    ApprehensionData,
    BalanceTotal,
    CitizenshipCount,
    CustodyData,
    NilReportData,
    OpeningBalanceData,
    OperationClosedData,
    OperationOpenedData,
    SectionPlan,
    SmugglerArrestData,
    WithdrawalData,
)
from schemas.vocabulary import (
    BALANCE_MAX,
    CITIZENSHIPS,
    COUNT_MAX,
    UNITS,
    Citizenship,
    Coverage,
    Measure,
    WithdrawalReason,
)
from services.cli.command import Group, settings
from services.cli.command import command as declare
from services.cli.output import Format, format_option, many, note, print_table, printable, progress
from services.field import Data, FieldUnit, NotJoinedError, OutboxError, Report, Status
from services.runtime import clock
from services.runtime.errors import UnreachableError, UsageError

CONNECT_S: Final = 2.0
ANSWER_S: Final = 5.0
FLUSH_S: Final = 30.0
LISTED: Final = 20
YEAR_MIN: Final = 2000
AHEAD_MAX: Final = timedelta(days=366)
_JOIN: Final = "join first: `fieldtally report --join LINK`, with the link that `fieldtally devices enrol` shows"


class _Moment(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read a time with an offset."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r}: write date, time and offset, as in 2024-03-14T03:12:09+01:00.", param, ctx)
        _refuse_another_age(self, value, moment.date(), param, ctx)
        return moment


class _Day(click.ParamType[date]):
    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Read a date."""
        if isinstance(value, date):
            return value
        try:
            day = date.fromisoformat(value.strip())
        except ValueError:
            self.fail(f"{value!r}: write a date such as 2024-03-14.", param, ctx)
        _refuse_another_age(self, value, day, param, ctx)
        return day


class _Counts(click.ParamType[tuple[CitizenshipCount, ...]]):
    """Persons by citizenship: `SYR=4,AFG=3`; as it is typed in a hurry, too: `syr:4, afg 3`."""

    name = "counts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[CitizenshipCount, ...]:
        """Read the list."""
        if isinstance(value, tuple):
            return value
        found: dict[str, int] = {}
        for part in value.split(","):
            if not part.strip():
                self.fail("a comma with nothing behind it: write SYR=4,AFG=3, without blanks or in quotes.", param, ctx)
            read = re.fullmatch(r"\s*([^\s=:]+)\s*[=:\s]\s*([^\s=:]+)\s*", part)
            if not read:
                self.fail(f"{part.strip()!r}: write citizenship and count, as in SYR=4,AFG=3.", param, ctx)
            code = read[1].upper()
            if code not in CITIZENSHIPS:
                self.fail(
                    f"{read[1]!r} is no citizenship: three letters as in travel documents, such as SYR; "
                    "XXA for stateless, XXX for not known.", param, ctx,
                )  # fmt: skip
            if code in found:
                self.fail(f"{code} stands there twice: add the two up.", param, ctx)
            found[code] = _count(self, f"{code}: {read[2]!r}", read[2], COUNT_MAX, param, ctx)
        return tuple(CitizenshipCount(cast("Citizenship", code), count) for code, count in found.items())


class _Plan(click.ParamType[SectionPlan]):
    name = "section"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> SectionPlan:
        """Read one section of an operation."""
        if isinstance(value, SectionPlan):
            return value
        section, _, rest = value.partition(":")
        coverage, _, area = rest.partition(":")
        if coverage.strip() not in get_args(Coverage) or not area.strip():
            self.fail(
                f"{value!r}: write SECTION:COVERAGE:AREA with joint or remaining, as in 'koper:joint:Koper Police "
                "Administration'.", param, ctx,
            )  # fmt: skip
        with _rule(self, param, ctx):
            return SectionPlan(section.strip(), area.strip(), cast("Coverage", coverage.strip()))


class _Total(click.ParamType[BalanceTotal]):
    name = "total"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> BalanceTotal:
        """Read one figure of an opening balance."""
        if isinstance(value, BalanceTotal):
            return value
        fields = dict(part.strip().partition("=")[::2] for part in value.split(","))
        measures = fields.keys() & UNITS.keys()
        if len(measures) != 1 or fields.keys() - measures - {"section", "citizenship"}:
            self.fail(
                f"{value!r}: write MEASURE=COUNT and, if need be, section=… and citizenship=…, as in "
                f"persons=7850,citizenship=SYR; measures are {', '.join(UNITS)}.", param, ctx,
            )  # fmt: skip
        (measure,) = measures
        citizenship = fields.get("citizenship", "").strip().upper()
        if citizenship and citizenship not in CITIZENSHIPS:
            self.fail(f"{citizenship!r} is no citizenship: three letters as in travel documents.", param, ctx)
        count = _count(self, f"{measure}: {fields[measure]!r}", fields[measure], BALANCE_MAX, param, ctx)
        with _rule(self, param, ctx):
            return BalanceTotal(
                cast("Measure", measure), count, fields.get("section", "").strip(), cast("Citizenship", citizenship)
            )


class _Report(Group):
    """The group whose commands are the kinds of report."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the kind; without one that there is, say which there are."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"there is no kind of report {args[0]!r}; there are {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(
    "report",
    cls=_Report,
    invoke_without_command=True,
    examples=(
        "report --join 'http://HOST:PORT/#token=TOKEN&source=/SI/SI-MP-07/9f3c2a'",
        "report apprehension --section koper --persons SYR=4,AFG=3",
        "report apprehension --section koper --persons SYR=5 --amends 17",
        "report withdrawal --amends 17 --reason did-not-occur",
        "report --list",
        "report --status",
        "report --flush",
    ),
)
@click.option("--join", "link", metavar="LINK", help="Join: keep the enrolment link's address and token. No network.")
@click.option("--status", "show", is_flag=True, help="Show what waits, what was rejected, and what is in the way.")
@click.option("--list", "listed", is_flag=True, help=f"List the latest {LISTED} reports, whatever became of them.")
@click.option("--all", "everything", is_flag=True, help="With --list: all reports of this outbox.")
@click.option("--dismiss", is_flag=True, help="Put away the notices that --status shows, once they are read.")
@click.option(
    "--flush", is_flag=True, help="Send what waits, for up to half a minute; exit code 3 if some still waits."
)
@click.option("--discard", metavar="NUMBER|ID", help="Set a rejected report aside for good; it stays in the outbox.")
@format_option("table", "json")
@click.pass_context
def report(
    ctx: click.Context,
    *,
    link: str | None,
    show: bool,
    listed: bool,
    everything: bool,
    dismiss: bool,
    flush: bool,
    discard: str | None,
    output_format: Format,
) -> int | None:
    """Publish one report through the outbox.

    A report is on this device's disk when the command ends, and goes to the gateway at once or, without a network, with
    a later one or with --flush. Exit codes: 0 recorded or on disk; 1 rejected, and kept for correction; 2 wrong input;
    3 --flush could not send everything.
    """
    asked = [name for name, given in (("--join", link is not None), ("--status", show), ("--list", listed),
                                      ("--dismiss", dismiss), ("--flush", flush), ("--discard", discard is not None))
             if given]  # fmt: skip
    if everything and not listed:
        ctx.fail("--all goes with --list")
    if ctx.invoked_subcommand:
        if asked:
            ctx.fail(f"{asked[0]} is a command of its own: give it without {ctx.invoked_subcommand}")
        return None
    if len(asked) > 1:
        ctx.fail(f"{' and '.join(asked)}: one at a time")
    if link is not None:
        return _join(link)
    if discard is not None:
        return _discard(discard)
    if flush:
        return _flush()
    if dismiss:
        return _dismiss()
    if listed:
        return _list(output_format, None if everything else LISTED)
    if not show:
        ctx.fail(f"say what to report: {', '.join(report.commands)}; or --status, --list, --flush, --join LINK")
    return _status(output_format)


def _kind(name: str, *examples: str) -> Callable[[Callable[..., Data]], click.Command]:
    """Declare a kind of report by a function from its options to its data; all kinds have three options in common."""

    def decorate(make: Callable[..., Data]) -> click.Command:
        def run(operation: str | None, time: datetime | None, amends: str | None, **options: Any) -> int:
            with _words():
                data = make(**options)
            return _publish(data, operation, time, amends)

        run.__doc__ = make.__doc__
        for option in (
            click.option(
                "--amends", metavar="NUMBER|ID", help="Say this in place of that report, with the whole content."
            ),
            click.option("--time", type=_Moment(), help="When it happened, with an offset; now, if left out."),
            click.option(
                "--operation",
                metavar="NAME",
                required=name.startswith("operation-"),
                help="The operation, such as SI-HR-2024-03; none for work outside any.",
            ),
        ):
            run = option(run)
        run.__click_params__ += make.__click_params__  # type: ignore[attr-defined]  # its own come first in the help
        made = declare(name, *(f"report {name} {example}" for example in examples))(run)
        report.add_command(made)
        return made

    return decorate


_SECTION: Final = click.option("--section", required=True, metavar="NAME", help="The section of the border.")
_CASE: Final = click.option("--case", required=True, metavar="NAME", help="The case, such as K-1.")


@_kind("apprehension", "--section koper --persons SYR=4,AFG=3 --operation SI-HR-2024-03")
@_SECTION
@click.option("--persons", required=True, type=_Counts(), help="Persons by citizenship: SYR=4,AFG=3.")
def _apprehension(section: str, persons: tuple[CitizenshipCount, ...]) -> Data:
    """Persons apprehended in one incident."""
    return ApprehensionData(section, persons)


@_kind("smuggler-arrest", "--section koper --case K-1 --opens-case --smugglers UKR=1 --smuggled-persons SYR=5")
@_SECTION
@_CASE
@click.option("--opens-case", is_flag=True, help="This is the first arrest of the case.")
@click.option("--smugglers", required=True, type=_Counts(), help="Persons arrested, by citizenship: UKR=1.")
@click.option("--smuggled-persons", type=_Counts(), default=(), help="Persons found with them: SYR=5.")
def _smuggler_arrest(
    *,
    section: str,
    case: str,
    opens_case: bool,
    smugglers: tuple[CitizenshipCount, ...],
    smuggled_persons: tuple[CitizenshipCount, ...],
) -> Data:
    """Smugglers arrested, and the persons found with them.

    Persons found with smugglers are not counted as apprehended: report the apprehension too.
    """
    return SmugglerArrestData(section, case, opens_case, smugglers, smuggled_persons)


@_kind("custody", "--case K-1 --remanded UKR=1")
@_CASE
@click.option("--remanded", required=True, type=_Counts(), help="Persons remanded, by citizenship: UKR=1.")
def _custody(case: str, remanded: tuple[CitizenshipCount, ...]) -> Data:
    """Persons of a case remanded in custody."""
    return CustodyData(case, remanded)


@_kind("nil-report", "--section koper --from 2024-03-14T00:00:00+01:00 --to 2024-03-14T06:00:00+01:00")
@_SECTION
@click.option("--from", "period_from", required=True, type=_Moment(), help="When the period began.")
@click.option("--to", "period_to", required=True, type=_Moment(), help="When it ended.")
def _nil_report(section: str, period_from: datetime, period_to: datetime) -> Data:
    """Nothing found in a section over a period."""
    return NilReportData(section, period_from, period_to)


@_kind(
    "operation-opened",
    "--operation SI-HR-2024-03 --name 'Joint control' --starts 2024-03-13 --ends 2024-03-15 "
    "--section 'koper:joint:Koper Police Administration'",
)
@click.option("--name", required=True, help="What the operation is called.")
@click.option("--starts", required=True, type=_Day(), help="First day.")
@click.option("--ends", required=True, type=_Day(), help="Last day, included.")
@click.option("--section", "sections", required=True, multiple=True, type=_Plan(), metavar="SECTION:COVERAGE:AREA",
              help="A section of this side; coverage is joint or remaining. May be repeated.")  # fmt: skip
def _operation_opened(name: str, starts: date, ends: date, sections: tuple[SectionPlan, ...]) -> Data:
    """A headquarters opens an operation for its side."""
    return OperationOpenedData(name, starts, ends, sections)


@_kind("operation-closed", "--operation SI-HR-2024-03 --closed 2024-03-15")
@click.option("--closed", required=True, type=_Day(), help="The operation's last day.")
def _operation_closed(closed: date) -> Data:
    """A headquarters closes an operation for its side."""
    return OperationClosedData(closed)


@_kind("opening-balance", "--from 2024-01-01 --to 2024-03-12 --total persons=7850,citizenship=SYR --total remanded=12")
@click.option("--from", "period_from", required=True, type=_Day(), help="First day of what was counted.")
@click.option("--to", "period_to", required=True, type=_Day(), help="Last day, included; it is booked on this day.")
@click.option("--total", "totals", required=True, multiple=True, type=_Total(), metavar="MEASURE=COUNT[,…]",
              help="A figure; may have section=… and citizenship=…. May be repeated.")  # fmt: skip
def _opening_balance(period_from: date, period_to: date, totals: tuple[BalanceTotal, ...]) -> Data:
    """What a headquarters had counted before the log began."""
    return OpeningBalanceData(period_from, period_to, totals)


@report.command("withdrawal", cls=type(_custody), examples=("report withdrawal --amends 17 --reason did-not-occur",))
@click.option("--amends", required=True, metavar="NUMBER|ID", help="The report that no longer counts.")
@click.option("--reason", required=True, type=click.Choice(get_args(WithdrawalReason)), help="Why.")
def _withdrawal(amends: str, reason: WithdrawalReason) -> int:
    """Take a report back: it no longer counts."""
    with _unit() as unit:
        return _deliver(unit, unit.withdraw(_ident(unit, amends), reason))


def _publish(data: Data, operation: str | None, time: datetime | None, amends: str | None) -> int:
    with _unit() as unit:
        if amends is None:
            return _deliver(unit, unit.report(data, subject=operation or "", time=time))
        return _deliver(unit, unit.amend(_ident(unit, amends), data, subject=operation, time=time))


def _deliver(unit: FieldUnit, stored: Report) -> int:
    """Try once to deliver what is on the disk; say in one line what is true of it now."""
    try:
        with suppress(KeyboardInterrupt):  # whoever does not want to wait need not: it is on the disk
            unit.flush(0)
    except OutboxError as error:  # nor is it reported again because what came after it failed
        note(str(error))
    found, status = unit.find(stored.id), unit.status()
    named = f"report {found.number} ({found.id})"
    match found.state:
        case "delivered":
            _tell(f"{named}: recorded at {found.position}")
        case "rejected":
            give_up = (
                f"take it back with `fieldtally report withdrawal --amends {found.number} --reason did-not-occur`, "
                "since it may be in the log all the same"
                if found.in_doubt
                else f"give it up with `fieldtally report --discard {found.number}`"
            )
            _tell(f"{named}: rejected: {_problem(found)}; it is kept: correct it with --amends {found.number}, or "
                  f"{give_up}")  # fmt: skip
        case _:
            _tell(f"{named}: on disk; {many(status.pending, 'report')} waiting, to be sent with the next one or with "
                  "`fieldtally report --flush`")  # fmt: skip
    _note(status, beside=found)
    return 1 if found.state == "rejected" else 0


def _tell(line: str) -> None:
    """Say on stdout what is true of a stored report; where nothing can be said there, on stderr.

    The exit code stays: nobody shall report it again because a line about it was lost.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # what is left of the line leads nowhere, instead of to a second error
        os.close(null)
        note(f"{line} (the output cannot be written: {error.strerror}; the report is stored all the same)")


def _ident(unit: FieldUnit, text: str) -> str:
    """Return a report's id, from that or from its number."""
    return str(unit.numbered(int(text)).id) if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) else text


def _note(status: Status, beside: Report | None = None, *, trouble: bool = True) -> None:
    """Say what a person should know beside the result."""
    if trouble and status.trouble and status.pending:
        note(status.trouble)
    if status.clock_off_s:
        off = "fast" if status.clock_off_s > 0 else "slow"
        note(f"this device's clock is {many(abs(status.clock_off_s), 'second')} {off}: set it")
    others = status.rejected - (beside is not None and beside.state == "rejected")
    if others:
        note(f"{many(others, 'report')} rejected and not corrected yet: see `fieldtally report --status`")


def _join(link: str) -> int:
    path = settings().data_dir / "outbox.db"
    FieldUnit.join(path, link)
    with _unit() as unit:
        status = unit.status()
    print(f"joined as {status.source}, reporting to {status.address}")
    return 0


def _discard(ident: str) -> int:
    with _unit() as unit:
        discarded = unit.discard(_ident(unit, ident))
    print(f"report {discarded.number} ({discarded.id}): discarded; it stays in the outbox")
    return 0


def _flush() -> int:
    sent = refused = 0  # in this flush: what was sent before may be waiting again, since the log has lost it

    with _unit() as unit:
        with progress("sending", unit.status().pending) as advance:

            def settled(delivered: int, rejected: int) -> None:
                nonlocal sent, refused
                sent += delivered
                refused += rejected
                advance(delivered + rejected)

            done = unit.flush(FLUSH_S, settled)
        status = unit.status()
        print(f"{many(sent, 'report')} sent, {refused} rejected, {status.pending} waiting")
        _note(status, trouble=done)
    if not done:
        raise UnreachableError(status.trouble or "somebody else is sending from this outbox; try again")
    return 1 if refused else 0


def _status(output_format: Format) -> int:
    with _unit() as unit:
        status = unit.status()
        found = (*unit.rejected(), *unit.pending(), *unit.discarded())
    if output_format == "json":
        print(msgspec.json.format(msgspec.json.encode(
            {**msgspec.structs.asdict(status), "reports": [*map(_row, found)]}), indent=1).decode())  # fmt: skip
        return 0
    facts = {
        "reports as": status.source,
        "to": status.address,
        "waiting": status.pending,
        "recorded": status.delivered,
        "rejected": status.rejected,
        "discarded": status.discarded,
        "last number": status.last_number,
        "in the way": status.trouble if status.pending else "",
        "clock": f"{status.clock_off_s:+} s" if status.clock_off_s else "",
    }
    print_table([{"outbox": name, "": fact} for name, fact in facts.items() if fact != ""], ("outbox", ""), "")
    for noticed in status.notices:
        print(f"\n{noticed.at:%Y-%m-%d %H:%M} UTC: {printable(noticed.text)}")
    if status.notices:
        print("(once read, `fieldtally report --dismiss` puts this away)")
    if found:
        print()
        _print_reports(found)
    return 0


def _list(output_format: Format, count_max: int | None) -> int:
    with _unit() as unit:
        found = unit.history(None if count_max is None else count_max + 1)
    shown = found[:count_max]
    if output_format == "json":
        print(msgspec.json.format(msgspec.json.encode([*map(_row, shown)]), indent=1).decode())
    else:
        _print_reports(shown)
    if len(shown) < len(found):
        note(f"these are the latest {count_max}; --all lists the others too")
    return 0


def _dismiss() -> int:
    with _unit() as unit:
        print(f"{many(unit.dismiss(), 'notice')} put away")
    return 0


def _print_reports(found: Sequence[Report]) -> None:
    """Print two lines for each, or three: an id in a table's column would be broken where a terminal is narrow."""
    width = max((len(str(one.number)) for one in found), default=0)
    for one in found:
        print(f"{one.number:>{width}}  {one.state:9}  {one.id}  {_says(one)}")
        for line in (_about(one), _problem(one)):
            if line:
                print(f"{'':{width}}  {line}")
    if not found:
        print("no reports yet")


def _row(found: Report) -> dict[str, Any]:
    return {
        "number": found.number,
        "kind": found.kind,
        "state": found.state,
        "id": str(found.id),
        "amends": str(found.amends or ""),
        "position": found.position,
        "time": found.event.time,
        "says": _says(found),
        "problem": _problem(found),
    }


def _says(found: Report) -> str:
    """Return what a report says, in a few words."""
    data = found.event.data
    match data:
        case ApprehensionData():
            return f"{_persons(data.persons)}, {data.section}"
        case SmugglerArrestData():
            return f"smugglers {_persons(data.smugglers)}, case {data.case}, {data.section}"
        case CustodyData():
            return f"custody {_persons(data.remanded)}, case {data.case}"
        case NilReportData():
            return f"nil report, {data.section}"
        case OperationOpenedData():
            return f"opened, {data.starts} to {data.ends}"
        case OperationClosedData():
            return f"closed, {data.closed}"
        case OpeningBalanceData():
            return f"opening balance to {data.period_to}"
        case WithdrawalData():
            return f"withdrawal, {data.reason}"
    assert_never(data)


def _about(found: Report) -> str:
    event = found.event
    facts = (
        f"{event.time:%Y-%m-%d %H:%M %z}",
        event.subject,
        f"amends {found.amends}" if found.amends else "",
        f"at {found.position}" if found.position else "",
    )
    return "; ".join(fact for fact in facts if fact)


def _persons(counts: Sequence[CitizenshipCount]) -> str:
    return ",".join(f"{each.citizenship}={each.count}" for each in counts)


def _problem(found: Report) -> str:
    return printable(f"{found.problem.title}: {found.problem.detail}") if found.problem else ""


def _refuse_another_age(
    kind: click.ParamType[Any], text: str, day: date, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    """Refuse the years of a slip of the finger; a device's clock may be wrong, though not by that much."""
    if day.year < YEAR_MIN or day > clock.now().date() + AHEAD_MAX:
        kind.fail(f"{text!r}: the year is {day.year}: is that what you mean? Write one from {YEAR_MIN} to next year.",
                  param, ctx)  # fmt: skip


@contextmanager
def _unit() -> Iterator[FieldUnit]:
    """Open this device's outbox; NotJoinedError says how to join."""
    told: list[str] = []
    try:
        unit = FieldUnit(
            settings().data_dir / "outbox.db", on_notice=told.append, connect_s=CONNECT_S, answer_s=ANSWER_S
        )
    except NotJoinedError as error:
        raise NotJoinedError(f"this device has not joined yet; {_JOIN}") from error
    try:
        yield unit
    finally:
        unit.close()
        for text in told:
            note(text)


@contextmanager
def _words() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"this was not stored: {error}") from error


@contextmanager
def _rule(kind: click.ParamType[Any], param: click.Parameter | None, ctx: click.Context | None) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        kind.fail(f"{error}.", param, ctx)


def _count(
    kind: click.ParamType[Any],
    place: str,
    text: str,
    most: int,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) or not 1 <= int(text) <= most:
        kind.fail(f"{place}: a whole number from 1 to {most:,}; leave out who was not there.", param, ctx)
    return int(text)
