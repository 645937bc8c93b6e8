"""The picture of `watch`: how old it is, what fits, and that nothing is left out unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from rich.text import Text

from schemas.events import SectionPlan
from schemas.screen import (
    AmendmentShown,
    AuditShown,
    DeviceShown,
    Hours,
    OperationShown,
    ReportShown,
    SideShown,
    Snapshot,
)
from schemas.vocabulary import CITIZENSHIPS, START, UNITS, Position, Side
from services.cli.picture import BIG, Look, add_up, as_line, health, narrowed, picture
from services.control_room.export import Filters
from services.runtime.errors import DamagedLogError, FieldtallyError, UnreachableError
from tests import given

NOW = datetime(2024, 3, 14, 12, 0, tzinfo=UTC)
PLACE = Position("1710417000000-0")
DIGEST = "0123456789abcdef" * 4
ALL = Filters()
ZONES = {"SI": ("Europe/Ljubljana", "SVN"), "HR": ("Europe/Zagreb", "HRV")}
PLAN = OperationShown(
    given.OPERATION,
    "Joint control",
    date(2024, 3, 13),
    date(2024, 3, 15),
    None,
    (SectionPlan("koper", "Koper", "joint"), SectionPlan("ljubljana", "Ljubljana", "remaining")),
)


def side(name: str = "SI", **facts: Any) -> SideShown:
    zone, citizenship = ZONES[name]
    shown = SideShown(
        side=Side(name), zone=zone, citizenship=citizenship, position=PLACE, entries=1, generation="g1", digest=DIGEST,
        lag=0, lag_s=0.0, heard=NOW, parked=0, operations=(), cells={}, devices=(), hours=Hours(0, {}), latest=(),
        amendments=(), amended={}, audit=None,
    )  # fmt: skip
    return replace(shown, **facts)


def snapshot(*sides: SideShown) -> Snapshot:
    return Snapshot(view="live", now=NOW, id="", digest=DIGEST, fold_version=1, sides=sides or (side(),))


def look(
    *sides: SideShown, filters: Filters = ALL, unseen_s: float = 0.0, failures: Sequence[FieldtallyError] = ()
) -> Look:
    chosen = narrowed(snapshot(*sides), filters)
    return Look(chosen, add_up(chosen), health(chosen, NOW - timedelta(seconds=unseen_s), failures))


def drawn(*sides: SideShown, width: int = 80, height: int | None = None, **more: Any) -> list[str]:
    """Return the lines of the picture, as a terminal without colours has them."""
    shown = picture(look(*sides, **more), more.get("filters", ALL), width, height)
    return [line.rstrip() for line in shown.plain.split("\n")]


def line_of(lines: list[str], begins: str) -> str:
    (found,) = [line for line in lines if line.strip().startswith(begins)]
    return " ".join(found.split())


def cell(measure: str, citizenship: str = "", *, name: str = "SI", section: str = "koper", day: str = "14") -> str:
    return f"{name}|{given.OPERATION}|{section}|2024-03-{day}|{measure}|{citizenship}"


def report(kind: str = "apprehension", **facts: Any) -> ReportShown:
    shown = ReportShown(
        position=PLACE, received=NOW, time=NOW, type=kind, unit="SI-MP-07", operation=given.OPERATION, section="koper",
        revision=0, reason=None, counts={},
    )  # fmt: skip
    return replace(shown, **facts)


def full_side(name: str) -> SideShown:
    """A side with more of everything than any terminal has room for, and the longest names."""
    cells = {cell("persons", code, name=name, section=f"section-{number % 40}-{'x' * 50}"): number + 1
             for number, code in enumerate(sorted(CITIZENSHIPS))}  # fmt: skip
    latest = [
        report(counts={"persons": dict.fromkeys(sorted(CITIZENSHIPS), 10_000)}, section="s" * 64, unit="u" * 64)
    ] * 30
    devices = [DeviceShown("u" * 64, "d" * 64, 900, tuple((n, n + 1) for n in range(1, 90, 3)), 3, NOW)] * 50
    return side(
        name,
        operations=(replace(PLAN, name="漢" * 200),),
        cells=cells | {cell("smugglers", "UKR", name=name): 1_000_000_000},
        latest=tuple(latest),
        devices=tuple(devices),
        parked=1_000_000,
        heard=NOW - timedelta(days=4),
        audit=AuditShown(PLACE, DIGEST, NOW),
    )


# How old it is


@pytest.mark.parametrize(
    ("unseen_s", "state"),
    [(0, "LIVE"), (10, "LIVE"), (10.1, "DELAYED"), (15, "DELAYED"), (15.1, "LOST"), (9e9, "LOST")],
)
def test_numbers_age_by_when_the_server_was_seen(unseen_s: float, state: str) -> None:
    found = health(snapshot(), NOW - timedelta(seconds=unseen_s), [])
    assert (state, unseen_s) == (found.state, pytest.approx(found.unseen_s))
    assert (state != "LIVE") == bool(found.causes)


@pytest.mark.parametrize(("lag_s", "state"), [(10.0, "LIVE"), (10.1, "DELAYED"), (4_000.0, "DELAYED")])
def test_a_projector_that_is_behind_delays_and_is_named(lag_s: float, state: str) -> None:
    found = health(snapshot(side(), side("HR", lag=3, lag_s=lag_s)), NOW, [])
    assert state == found.state
    assert (state != "LIVE") == any("HR: the projector" in cause for cause in found.causes)


def test_nobody_is_blamed_for_what_was_not_seen() -> None:
    """How long an entry waits can only be said by who sees the log."""
    behind = side(lag=3, lag_s=60.0)
    assert not any("projector" in cause for cause in health(snapshot(behind), NOW - timedelta(seconds=12), []).causes)
    assert "projector not known" in drawn(behind, unseen_s=12)[0]
    assert "projector 3 entries behind, 60 s" in drawn(behind)[0]


def test_what_keeps_us_from_the_server_is_said_at_once() -> None:
    lines = drawn(failures=[UnreachableError("cannot reach unix:///there: is it running?")])
    assert "● LIVE" in lines[0]
    assert "△ cannot reach unix:///there: is it running?" == lines[1]


def test_damage_is_no_border_that_is_quiet() -> None:
    lines = drawn(failures=[DamagedLogError("side SI: the archive has what the log never held")])
    assert "◐ DELAYED" in lines[0]
    assert "△ side SI: the archive has what the log never held" == lines[1]


def test_a_clock_that_was_set_back_makes_nothing_young_or_negative() -> None:
    assert 0.0 == health(snapshot(), NOW + timedelta(seconds=60), []).unseen_s


@pytest.mark.parametrize(("unseen_s", "said"), [(0, "● LIVE"), (11, "◐ DELAYED"), (16, "✕ LOST")])
def test_each_state_has_a_sign_and_a_word(unseen_s: int, said: str) -> None:
    lines = drawn(unseen_s=unseen_s)
    assert f" {said}  server seen {unseen_s} s ago" in lines[0]
    assert bool(unseen_s) == ("the numbers are old: the server was last seen at" in lines[1])


# What fits


@pytest.mark.parametrize("width", [20, 40, 60, 71, 72, 80, 109, 110, 132, 250])
@pytest.mark.parametrize("height", [1, 5, 12, 16, 20, 24, 30, 43, 70])
@pytest.mark.parametrize("unseen_s", [0, 20])
def test_it_fits_every_terminal(width: int, height: int, unseen_s: int) -> None:
    now = look(
        full_side("SI"), full_side("HR"), unseen_s=unseen_s, failures=[UnreachableError("cannot reach " + "x" * 300)]
    )
    lines = picture(now, ALL, width, height).split("\n", allow_blank=True)
    assert height == len(lines)
    assert width >= max(line.cell_len for line in lines)
    assert ("LIVE", "LOST")[unseen_s > 0] in lines[0].plain
    if width >= 40 and height >= 24:
        assert lines[-1].plain.startswith("digest ")


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (80, 50), (120, 30), (200, 60), (80, None)])
def test_what_is_cut_off_a_list_is_in_its_last_line(width: int, height: int | None) -> None:
    """The lines of a list always add up to everything there is."""
    lines = drawn(full_side("SI"), side("HR"), width=width, height=height)
    at = next(number for number, line in enumerate(lines) if line.startswith("Persons by citizenship"))
    columns = lines[at].index("total") + len("total")
    rows = []
    for line in lines[at + 1 :]:
        if line.startswith(("By section", "Latest", "✓")) or not line[:columns].strip():
            break
        rows.append(int(line[:columns].split()[-1].replace(",", "")))
    codes = len(CITIZENSHIPS)
    assert len(rows) >= 2
    assert codes * (codes + 1) // 2 == sum(rows)


def test_on_24_lines_of_80_there_is_something_of_everything() -> None:
    si = side(
        operations=(PLAN,), cells={cell("persons", "SYR"): 4, cell("remanded", "UKR"): 1}, latest=(report(),),
        devices=(DeviceShown("SI-MP-07", "9f3c2a", 118, ((103, 104),), 0, NOW),), audit=AuditShown(PLACE, DIGEST, NOW),
    )  # fmt: skip
    lines = drawn(si, side("HR"), height=24)
    text = "\n".join(lines)
    for said in (
        "● LIVE", "13:00:00 CET", f"{given.OPERATION} day 2 of 3", f"SI  as of {PLACE} at 12:50:00 CET", "HR  as of",
        "SYR Syria", "koper", "apprehension, koper", "△ 103–104 mi", f"✓ SI rebuilt = live at {PLACE}",
        "○ HR no audit has agreed yet", f"digest {DIGEST}",
    ):  # fmt: skip
        assert said in text, said
    for measure in BIG:
        assert UNITS[measure] in line_of(lines, f"{measure} ")
    assert f"digest {DIGEST}" == lines[-1]


# What it says


def test_each_side_and_their_total_stand_beside_each_measure() -> None:
    both = drawn(side(cells={cell("persons", "SYR"): 1_204}), side("HR", cells={cell("persons", "AFG", name="HR"): 3}))
    assert "persons 1,207 1,204 3 persons apprehended" == line_of(both, "persons ")
    assert "smugglers 0 0 0 persons arrested" == line_of(both, "smugglers ")
    assert "persons 1,204 persons apprehended" == line_of(drawn(side(cells={cell("persons"): 1_204})), "persons ")


def test_what_amendments_have_changed_is_beside_the_measure() -> None:
    lines = drawn(side(amended={cell("persons", "SYR"): -3, cell("persons", "AFG"): 1}))
    assert "persons 0 persons apprehended (amended -2)" == line_of(lines, "persons ")
    assert "amended" not in line_of(lines, "smugglers ")


def test_the_filters_choose_what_the_selectors_of_tallies_choose() -> None:
    """The whole snapshot is narrowed, and its digest stays that of everything."""
    cells = {cell("persons", "SYR", day="13"): 1, cell("persons", "SYR", day="14"): 2, cell("persons", day="15"): 4}
    other = "SI||koper|2024-03-14|persons|SYR"
    hour = int(datetime(2024, 3, 13, 22, tzinfo=UTC).timestamp())
    hours = {f"{hour + 3_600 * more}|{given.OPERATION}|koper|persons": 1 for more in (0, 1)}
    amendment = AmendmentShown(
        position=PLACE, received=NOW, type="apprehension", unit="SI-MP-07", operation=given.OPERATION, section="koper",
        day="2024-03-14", reason=None, changes=dict.fromkeys(cells, 1),
    )  # fmt: skip
    shown = side(
        cells=cells | {other: 8},
        operations=(PLAN, replace(PLAN, operation="other")),
        hours=Hours(0, hours | {f"{hour + 3_600}||koper|persons": 1}),
        latest=(report(), report(operation=""), report(time=NOW - timedelta(hours=14))),
        amendments=(amendment, replace(amendment, changes={other: 1})),
    )
    day = date(2024, 3, 14)
    (chosen,) = narrowed(snapshot(shown), Filters(operation=given.OPERATION, first=day, last=day)).sides
    assert {cell("persons", "SYR", day="14"): 2} == chosen.cells
    assert (PLAN,) == chosen.operations
    assert [hour + 3_600] == [int(name.partition("|")[0]) for name in chosen.hours.counts]
    assert (report(),) == chosen.latest
    assert [{cell("persons", "SYR", day="14"): 1}] == [one.changes for one in chosen.amendments]
    assert {other: 8} == narrowed(snapshot(shown), Filters(operation="")).sides[0].cells
    assert {cell("persons", day="15"): 4} == narrowed(snapshot(shown), Filters(first=date(2024, 3, 15))).sides[0].cells
    assert DIGEST == narrowed(snapshot(shown), Filters(operation="x")).digest


@pytest.mark.parametrize(
    ("plans", "filters", "said"),
    [
        ([], ALL, "all operations"),
        ([PLAN], ALL, f"all operations: {given.OPERATION} day 2 of 3"),
        ([PLAN], Filters(operation=given.OPERATION), f"{given.OPERATION} · Joint control · day 2 of 3"),
        ([PLAN], Filters(operation="X-1"), "X-1 · nobody has opened this operation yet"),
        ([PLAN], Filters(operation=""), "outside any operation"),
        ([replace(PLAN, starts=date(2024, 3, 15))], ALL, f"all operations: {given.OPERATION} starts 2024-03-15"),
        ([replace(PLAN, ends=date(2024, 3, 13))], ALL, f"all operations: {given.OPERATION} ended 2024-03-13"),
        ([replace(PLAN, closed=date(2024, 3, 14))], ALL, f"all operations: {given.OPERATION} ended 2024-03-14"),
        (
            [replace(PLAN, operation="A", ends=date(2024, 3, 13)), replace(PLAN, operation="B")],
            ALL,
            "all operations: B day 2 of 3, A ended 2024-03-13",
        ),
        ([], Filters(first=date(2024, 3, 1)), "all operations · from 2024-03-01"),
        ([], Filters(last=date(2024, 3, 1)), "all operations · until 2024-03-01"),
        (
            [],
            Filters(first=date(2024, 3, 1), last=date(2024, 3, 31)),
            "all operations · 2024-03-01 to 2024-03-31",
        ),
    ],
)
def test_it_says_what_is_looked_at(plans: list[OperationShown], filters: Filters, said: str) -> None:
    assert said == drawn(side(operations=tuple(plans)), filters=filters)[1]


def test_zero_is_told_from_silence() -> None:
    lines = drawn(
        side(cells={cell("nil_reports"): 3}, latest=(report("nil-report", counts={"nil_reports": {"": 1}}),)),
        side("HR", position=START, heard=None),
        width=120,
    )
    assert "HR nothing counted yet · ◐ nothing heard yet" == line_of(lines, "HR ")
    assert any(line.endswith(" 0          0    3") for line in lines)
    assert any("nothing found" in line for line in lines)
    assert "◐ silent for 11 min" in drawn(side(heard=NOW - timedelta(minutes=11)))[2]
    assert "heard 10 min ago" in drawn(side(heard=NOW - timedelta(minutes=10)))[2]


def test_of_a_server_that_is_away_nobody_knows_whether_a_side_is_silent() -> None:
    lines = drawn(side(heard=NOW - timedelta(minutes=11)), width=200, unseen_s=60)
    [stands] = [line for line in lines if line.startswith("SI ")]
    assert stands.endswith(", not known since") and "silent" not in stands


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (report(counts={"apprehensions": {"": 1}, "persons": {"SYR": 4, "AFG": 3}}), "7 persons (4 SYR, 3 AFG)"),
        (report(counts={"apprehensions": {"": 1}, "persons": {"SYR": 1}}), "1 person (1 SYR)"),
        (
            report("smuggler-arrest", counts={"smuggling_cases": {"": 1}, "smugglers": {"UKR": 2}}),
            "1 case, 2 smugglers (2 UKR)",
        ),
        (report("custody", counts={"remanded": {"UKR": 1}}), "1 person remanded (1 UKR)"),
        (report("operation-opened"), "operation opened"),
        (report(revision=2, counts={"persons": {"SYR": 1}}), "1 person (1 SYR), amended"),
        (report("withdrawal", revision=1, reason="did-not-occur"), "↩ withdrawn: did not occur"),
    ],
)
def test_a_report_is_said_in_words(shown: ReportShown, said: str) -> None:
    row = next(line for line in drawn(side(latest=(shown,)), width=200) if line.startswith("13:00"))
    assert row.startswith(f"13:00   SI    {said}  ")


def test_the_latest_of_all_sides_come_newest_first_each_at_its_own_time() -> None:
    day_before = report(position=Position("1-0"), time=NOW - timedelta(days=1), unit="A")
    year_before = report(position=Position("3-0"), time=NOW - timedelta(days=366), unit="B")
    middle = report(position=Position("2-0"), unit="C")
    lines = drawn(side(latest=(year_before, day_before)), side("HR", latest=(middle,)), width=120)
    at = next(number for number, line in enumerate(lines) if line.startswith("Latest"))
    assert [["2023-03-14", "SI"], ["13:00", "HR"], ["13", "Mar"]] == [
        line.split()[:2] for line in lines[at + 1 : at + 4]
    ]


def test_devices_to_ask_come_first_those_with_numbers_missing() -> None:
    devices = (
        DeviceShown("A", "well", 5, (), 0, NOW),
        DeviceShown("B", "silent", 5, (), 0, NOW - timedelta(hours=3)),
        DeviceShown("C", "gaps", 118, ((103, 104), (110, 110)), 0, NOW),
        DeviceShown("D", "reused", 5, (), 1, NOW),
    )
    lines = drawn(side(devices=devices), width=60)
    at = next(number for number, line in enumerate(lines) if line.startswith("Devices to ask"))
    assert ["Devices to ask", "3 of 4"] == [part for part in lines[at].split("  ") if part]
    assert [
        "C/gaps △ 103–104, 110 missing",
        "D/reused △ 1 number used twice",
        "B/silent ◐ silent for 3 h",
    ] == [" ".join(line.split()) for line in lines[at + 1 : at + 4]]


@pytest.mark.parametrize("width", [40, 72, 80, 120])
def test_a_long_name_gives_way_to_the_numbers_that_are_missing(width: int) -> None:
    name = ("HR-PU-PRIMORSKO-GORANSKA-3", "telefon-04-in-vehicle-17")
    gaps = tuple((number, number + 1) for number in range(10, 10 + 3 * 500, 3))
    shown = drawn(side("HR", devices=(DeviceShown(*name, 5_000, ((7, 7), *gaps), 0, NOW),)), width=width)
    (line,) = [line for line in shown if "HR-PU" in line]
    assert "△ 7, 10–11" in line
    assert width >= max(map(len, shown))
    if width > 80:
        assert "△ 7, 10–11 +499 more" in line


def test_an_operation_of_another_country_may_bring_any_name_and_moves_no_cursor() -> None:
    named = replace(PLAN, name="\x1b[2J[red]č\n\r")
    lines = drawn(side(operations=(named,)), filters=Filters(operation=given.OPERATION))
    assert f"{given.OPERATION} · �[2J[red]č�� · day 2 of 3" == lines[1]


def test_lost_numbers_look_other_than_live_ones() -> None:
    def styles(unseen_s: int) -> set[str]:
        shown = picture(look(unseen_s=unseen_s), ALL, 80)
        line = next(line for line in shown.split("\n") if line.plain.startswith("persons"))
        return {str(span.style) for span in line.spans}

    assert "dim" in styles(20)
    assert "dim" not in styles(0)
    assert isinstance(picture(look(), ALL, 80), Text)


def test_as_a_line_it_says_state_numbers_and_positions_and_nothing_that_a_clock_moves() -> None:
    shown = look(side(cells={cell("persons", "SYR"): 4}))
    line = f"LIVE   SI persons 4 smugglers 0 smuggling_cases 0 smuggled_persons 0 remanded 0 at {PLACE}"
    assert line == as_line(shown)
    later = replace(shown.snapshot, now=NOW + timedelta(seconds=5))
    assert line == as_line(shown._replace(snapshot=later))
