"""The log of the joint operation adds up to the press release, whatever the seed, and is no cleaner than a real one."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from schemas import codec
from schemas.vocabulary import Position, Side
from services.simulator import joint_operation as simulated
from services.simulator.fleet import Submission
from services.tally.cells import Tallies
from services.tally.fold import EVENT_FIELD, State, arrive, fold
from services.tally.operations import coverage_by_section

SEEDS = (2024, *range(5))
LOCAL = timezone(timedelta(hours=1))
OPERATION = "SI-HR-2024-03"
CLAIMS: list[dict[str, Any]] = tomllib.loads(
    (Path(simulated.__file__).parent / "press_release.toml").read_text(encoding="utf-8")
)["claim"]

# The published figures: side, operation, coverage, first day, last day, measure, citizenships, figure.
SI_YEAR, SI_OPERATION = ("SI", None, None), ("SI", OPERATION, "joint")
FIGURES = [
    (*SI_OPERATION, "2024-03-13", "2024-03-15", "persons", None, 127),
    (*SI_OPERATION, "2024-03-13", "2024-03-15", "smugglers", None, 4),
    (*SI_OPERATION, "2024-03-13", "2024-03-15", "smugglers", "UKR", 2),
    (*SI_OPERATION, "2024-03-13", "2024-03-15", "smugglers", "ROU", 1),
    (*SI_OPERATION, "2024-03-13", "2024-03-15", "smugglers", "SRB", 1),
    ("HR", OPERATION, "joint", "2024-03-13", "2024-03-15", "persons", None, 172),
    ("HR", OPERATION, "joint", "2024-03-13", "2024-03-15", "smugglers", None, 3),
    ("HR", OPERATION, "remaining", "2024-03-13", "2024-03-15", "smugglers", None, 6),
    ("HR", OPERATION, "joint", "2024-03-14", "2024-03-15", "persons", None, 172),
    ("HR", OPERATION, "joint", "2024-03-14", "2024-03-15", "smugglers", None, 3),
    ("HR", OPERATION, "remaining", "2024-03-14", "2024-03-15", "smugglers", None, 6),
    (*SI_YEAR, "2024-01-01", "2024-03-15", "persons", None, 7_851),
    (*SI_YEAR, "2022-01-01", "2022-12-31", "smuggling_cases", None, 242),
    (*SI_YEAR, "2023-01-01", "2023-12-31", "smuggling_cases", None, 479),
    (*SI_YEAR, "2023-01-01", "2023-12-31", "smugglers", None, 557),
    (*SI_YEAR, "2023-01-01", "2023-12-31", "smugglers", "XXX", 548),
    (*SI_YEAR, "2023-01-01", "2023-12-31", "smugglers", "SVN", 9),
    (*SI_YEAR, "2023-01-01", "2023-12-31", "smuggled_persons", None, 3_280),
    (*SI_YEAR, "2023-01-01", "2023-12-31", "remanded", None, 514),
    (*SI_YEAR, "2023-01-01", "2023-03-01", "smuggling_cases", None, 27),
    (*SI_YEAR, "2024-01-01", "2024-03-01", "smuggling_cases", None, 121),
    (*SI_YEAR, "2024-01-01", "2024-03-01", "smugglers", None, 137),
    (*SI_YEAR, "2024-01-01", "2024-03-01", "smugglers", "XXX", 135),
    (*SI_YEAR, "2024-01-01", "2024-03-01", "smugglers", "SVN", 2),
    (*SI_YEAR, "2024-01-01", "2024-03-01", "smuggled_persons", None, 757),
]


class Counted(NamedTuple):
    """One count as the oracle reads it from a report in force."""

    side: str
    operation: str
    section: str
    day: str
    measure: str
    citizenship: str
    persons_or_cases: int


@lru_cache
def log(seed: int) -> tuple[Submission, ...]:
    return tuple(simulated.joint_operation(seed))


def events(seed: int) -> list[dict[str, Any]]:
    return [json.loads(submission.event) for submission in log(seed)]


@lru_cache
def oracle(seed: int) -> tuple[tuple[Counted, ...], dict[tuple[str, str], str]]:
    """Count what is in force at the end, from the JSON alone; and the coverage of each side's sections."""
    final: dict[str, dict[str, Any]] = {}
    for event in events(seed):
        key = event.get("amends", event["id"])
        if key not in final or event.get("revision", 0) > final[key].get("revision", 0):
            final[key] = event
    counted: list[Counted] = []
    coverage: dict[tuple[str, str], str] = {}
    for event in final.values():
        kind, data = event["type"].removeprefix("org.fieldtally.").removesuffix(".v1"), event["data"]
        if kind == "operation-opened":
            coverage |= {(event["side"], plan["section"]): plan["coverage"] for plan in data["sections"]}
        day = datetime.fromisoformat(event["time"]).astimezone(LOCAL).date().isoformat()
        head = (event["side"], event.get("subject", ""), data.get("section", ""), day)
        if kind == "opening-balance":
            counted += [
                Counted(
                    *head[:2],
                    total.get("section", ""),
                    data["period_to"],
                    total["measure"],
                    total.get("citizenship", ""),
                    total["count"],
                )
                for total in data["totals"]
            ]
        for measure in ("persons", "smugglers", "smuggled_persons", "remanded"):
            counted += [
                Counted(*head, measure, entry["citizenship"], entry["count"]) for entry in data.get(measure, ())
            ]
        if kind == "apprehension":
            counted.append(Counted(*head, "apprehensions", "", 1))
        if kind == "nil-report":
            counted.append(Counted(*head, "nil_reports", "", 1))
        if data.get("opens_case"):
            counted.append(Counted(*head, "smuggling_cases", "", 1))
    return tuple(counted), coverage


def total(
    seed: int,
    side: str,
    operation: str | None,
    coverage: str | None,
    first: str,
    last: str,
    measure: str,
    citizenships: str | list[str] | None,
) -> int:
    counted, covered = oracle(seed)
    return sum(
        row.persons_or_cases
        for row in counted
        if (row.side, row.measure) == (side, measure)
        and first <= row.day <= last
        and (operation is None or row.operation == operation)
        and (coverage is None or covered.get((row.side, row.section)) == coverage)
        and (citizenships is None or row.citizenship in citizenships)
    )


def folded(seed: int) -> dict[str, State]:
    """Fold the log of each side, entry by entry."""
    states = {
        side: State(side=Side(side), zone=ZoneInfo(zone))
        for side, zone in (("SI", "Europe/Ljubljana"), ("HR", "Europe/Zagreb"))
    }
    for side, state in states.items():
        mine = [submission for submission in log(seed) if submission.side == side]
        arrivals = [
            arrive(Position(f"{number}-0"), {EVENT_FIELD: submission.event})
            for number, submission in zip(count(1), mine, strict=False)
        ]
        state.take(fold(state, arrivals, {}))
    return states


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: "-".join(str(part) for part in figure))
def test_the_log_adds_up_to_each_published_figure(seed: int, figure: tuple[Any, ...]) -> None:
    *selector, published = figure

    assert total(seed, *selector) == published


@pytest.mark.parametrize("seed", SEEDS)
def test_persons_are_predominantly_of_the_four_citizenships_named(seed: int) -> None:
    named = total(seed, *SI_OPERATION, "2024-03-13", "2024-03-15", "persons", ["SYR", "AFG", "MAR", "BGD"])

    assert 127 * 2 / 3 < named < 127


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fold_counts_the_same_as_the_oracle(seed: int) -> None:
    expected: Counter[tuple[str, ...]] = Counter()
    for row in oracle(seed)[0]:
        expected[row[:-1]] += row.persons_or_cases
    tallies: Tallies = {}
    for state in folded(seed).values():
        tallies |= state.tallies

    assert tallies == dict(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fold_parks_nothing_misses_nothing_and_knows_the_closed_operation(seed: int) -> None:
    for side, state in folded(seed).items():
        counters = state.checkpoint.counters
        assert (counters.parked, counters.original_missing, counters.number_reused) == (0, 0, 0)
        assert not any(numbers.missing for numbers in state.devices.values())
        assert state.operations[OPERATION].closed == date(2024, 3, 15)
        covered = {section: coverage for (_, section), coverage in coverage_by_section(state.operations).items()}
        assert covered == {section: coverage for (of, section), coverage in oracle(seed)[1].items() if of == side}


def test_the_claims_hold_but_for_the_two_that_the_release_contradicts_itself_in() -> None:
    differences = []
    for claim in CLAIMS:
        where = {**claim["where"]}
        selector: list[Any] = [where.pop("side"), where.pop("operation", None), where.pop("coverage", None)]
        selector += [claim["from"].isoformat(), claim["to"].isoformat(), claim["measure"]]
        rebuilt = total(2024, *[*selector, where.pop("citizenship", None)])
        assert where == {}
        if not (rebuilt == claim["equals"] if "equals" in claim else rebuilt > claim["more_than"]):
            differences.append((claim["measure"], "", rebuilt))
        for dimension, members in claim.get("breakdown", {}).items():
            if sum(members.values()) != claim["equals"]:
                differences.append((claim["measure"], "sum", sum(members.values())))
            for member, published in members.items():
                # The domestic citizenship of the only side with such a claim; what else there is, is foreign.
                kind = {"domestic": ["SVN"], "foreign": ["XXX"]}.get(member, [member])
                part = total(2024, *[*selector, kind])
                if part != published:
                    differences.append((claim["measure"], f"{dimension} {member}", part))

    assert differences == [("smugglers", "sum", 5), ("smugglers", "citizenship ROU", 1)]


def test_every_figure_of_the_release_is_claimed() -> None:
    claimed = sorted((claim["measure"], claim.get("equals", claim.get("more_than"))) for claim in CLAIMS)

    assert claimed == sorted([
        ("persons", 127), ("persons", 63), ("persons", 172), ("persons", 7_850),
        ("smugglers", 4), ("smugglers", 3), ("smugglers", 6), ("smugglers", 557), ("smugglers", 137),
        ("smuggling_cases", 242), ("smuggling_cases", 479), ("smuggling_cases", 27), ("smuggling_cases", 121),
        ("smuggled_persons", 3_280), ("smuggled_persons", 757), ("remanded", 514),
    ])  # fmt: skip


def test_equal_seeds_give_equal_submissions_and_others_do_not() -> None:
    assert simulated.joint_operation() == simulated.joint_operation(2024)
    assert {submission.event for submission in log(1)}.isdisjoint({submission.event for submission in log(2)})


@pytest.mark.parametrize("seed", SEEDS)
def test_there_are_150_to_300_submissions_all_canonical(seed: int) -> None:
    assert 150 <= len(log(seed)) <= 300
    assert all(codec.encode(codec.decode(submission.event)) == submission.event for submission in log(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_openings_and_balances_come_first_and_closings_last_within_the_operation(seed: int) -> None:
    kinds = [event["type"].removeprefix("org.fieldtally.") for event in events(seed)]
    arrivals = [submission.arrives for submission in log(seed)]

    assert kinds[:8] == ["operation-opened.v1"] * 2 + ["opening-balance.v1"] * 6
    assert kinds[-2:] == ["operation-closed.v1"] * 2
    assert not {"operation-opened.v1", "opening-balance.v1", "operation-closed.v1"} & set(kinds[8:-2])
    assert arrivals == sorted(arrivals)
    assert datetime(2024, 3, 13, tzinfo=LOCAL) <= arrivals[2]
    assert arrivals[-1] < datetime(2024, 3, 16, tzinfo=LOCAL)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_log_has_duplicates_late_reports_amendments_and_a_withdrawal(seed: int) -> None:
    read = events(seed)
    amendments = [event for event in read if "amends" in event]
    written = [int(event["id"].replace("-", "")[:12], 16) / 1000 for event in read]
    delays = [submission.arrives.timestamp() - at for submission, at in zip(log(seed), written, strict=True)]
    place = {event["id"]: number for number, event in reversed(list(enumerate(read)))}

    assert len(log(seed)) - len({submission.event for submission in log(seed)}) == 9
    assert sum(delay > 3_600 for delay in delays) >= 2
    assert len({event["id"] for event in amendments if event["type"].endswith("withdrawal.v1")}) == 3
    assert max(event["revision"] for event in amendments) == 2
    assert any(place[event["id"]] < place[event["amends"]] for event in amendments)
    assert any(event["type"].endswith("nil-report.v1") for event in read)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_id_or_a_devices_number_comes_again_only_with_the_same_bytes(seed: int) -> None:
    different = [json.loads(event) for event in {submission.event for submission in log(seed)}]

    assert len({event["id"] for event in different}) == len(different)
    numbers: dict[str, list[int]] = {}
    for event in different:
        numbers.setdefault(event["source"], []).append(event["reportno"])
    assert all(sorted(seen) == list(range(1, len(seen) + 1)) for seen in numbers.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_each_case_is_opened_once_and_no_more_are_remanded_than_were_arrested(seed: int) -> None:
    opened: Counter[str] = Counter()
    arrested: Counter[tuple[str, str]] = Counter()
    remanded: Counter[tuple[str, str]] = Counter()
    for event in {event["id"]: event for event in events(seed)}.values():
        case = event["data"].get("case")
        opened[case] += event["data"].get("opens_case", False)
        for entry in event["data"].get("smugglers", ()):
            arrested[case, entry["citizenship"]] += entry["count"]
        for entry in event["data"].get("remanded", ()):
            remanded[case, entry["citizenship"]] += entry["count"]

    assert {opened[case] for case, _ in arrested} == {1}
    assert remanded.total() > 0
    assert remanded <= arrested
