"""A replay rebuilds from the log alone what it adds up to, at its end or at any position before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from schemas.claims import Claims, decode_claims
from schemas.vocabulary import Position, Side
from services.replay import replay as replaying
from services.replay.audit import Audited, Verdict, audit
from services.replay.replay import Replay
from services.runtime.errors import DamagedLogError
from services.runtime.settings import SideSettings
from services.simulator import joint_operation as simulated
from services.store.contract import LogExtent, StoredAt
from services.store.memory import MemoryLog, MemoryTallyStore
from services.tally.cells import cell_text
from services.tally.digest import state_digest
from services.tally.fold import Key, State, Version, arrive, fold
from tests import given, oracle
from tests.given import Folded

SIDES = {
    "SI": SideSettings(Side("SI"), given.ZONES["SI"], "SVN"),
    "HR": SideSettings(Side("HR"), given.ZONES["HR"], "HRV"),
}
SEEDS = (1, 20240313)


def log_of(entries: Sequence[given.Fields]) -> MemoryLog:
    log = MemoryLog()
    for fields in entries:
        log.append_fields(fields)
    return log


@lru_cache
def seeded(seed: int, side: str) -> list[given.Fields]:
    return given.seeded_log(seed, 400)[side]


def rebuilt(entries: Sequence[given.Fields], *stops: int, side: str = "SI") -> State:
    """Replay up to each of the positions in turn; without any, to the end."""

    async def run() -> State:
        replay = Replay(SIDES[side], log_of(entries))
        for stop in stops or (len(entries),):
            await replay.run(Position(f"{stop}-0"))
        return replay.state

    return asyncio.run(run())


def texts(state: State) -> dict[str, int]:
    return {cell_text(cell): count for cell, count in state.tallies.items()}


def prefix(entries: Sequence[given.Fields], stop: int) -> State:
    folded = Folded()
    folded.take_entries(entries[:stop])
    return folded.state


# --- replay ---


@pytest.mark.parametrize("batch", [1, 50, replaying.BATCH])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_replay_counts_what_the_oracle_counts(
    seed: int, side: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "BATCH", batch)
    entries = seeded(seed, side)
    expected = oracle.count(side, SIDES[side].zone.key, ((f"{at}-0", fields) for at, fields in enumerate(entries, 1)))
    state = rebuilt(entries, side=side)
    counters = state.checkpoint.counters

    assert expected.tallies == texts(state)
    assert expected.outcomes == {name: count for name in oracle.OUTCOMES if (count := getattr(counters, name))}
    assert oracle.digest(expected.tallies) == state_digest(state.tallies)
    assert (f"{len(entries)}-0", len(entries)) == (state.checkpoint.position, state.checkpoint.entries)


@pytest.mark.parametrize("stop", range(0, 61, 4))
def test_a_replay_to_a_position_is_the_fold_of_what_came_until_then(stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "BATCH", 7)
    entries = seeded(1, "SI")[:60]

    assert prefix(entries, stop) == rebuilt(entries, stop)


@examples(given.logs("SI"), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_a_replay_may_stop_anywhere_and_go_on(entries: list[given.Fields], stops: list[int]) -> None:
    ordered = sorted(min(stop, len(entries)) for stop in stops)

    assert prefix(entries, ordered[-1]) == rebuilt(entries, *ordered)


def test_a_position_between_two_entries_includes_the_one_before() -> None:
    entries = [given.entry(given.apprehension(id=number)) for number in (1, 2, 3)]

    async def run() -> State:
        replay = Replay(SIDES["SI"], log_of(entries))
        await replay.run(Position("2-18446744073709551615"))
        return replay.state

    assert prefix(entries, 2) == asyncio.run(run())


def test_a_position_beyond_the_end_is_the_end() -> None:
    entries = seeded(1, "SI")[:10]

    assert prefix(entries, 10) == rebuilt(entries, 99)


def test_an_empty_log_amounts_to_nothing() -> None:
    assert State(Side("SI"), given.ZONES["SI"]) == rebuilt([], 5)


def test_progress_is_told_by_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "BATCH", 7)
    told: list[int] = []
    asyncio.run(Replay(SIDES["SI"], log_of(seeded(1, "SI")[:20])).run(Position("17-0"), told.append))

    assert told == [7, 7, 3]


def test_a_log_that_has_lost_entries_is_not_replayed() -> None:
    class Trimmed(MemoryLog):
        async def extent(self) -> LogExtent:
            return LogExtent(Position("3-0"), 2, 3)

    with pytest.raises(DamagedLogError, match="holds 2 of the 3 entries"):
        asyncio.run(Replay(SIDES["SI"], Trimmed()).run(Position("3-0")))


def test_a_log_that_has_lost_what_a_report_amends_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "BATCH", 1)

    class Forgetful(MemoryLog):
        async def read_at(self, positions: Sequence[Position]) -> list[Any]:
            return [None for _ in positions]

    log = Forgetful()
    for event in (given.apprehension(id=1), given.apprehension(amends=1)):
        log.append_fields(given.entry(event))
    with pytest.raises(DamagedLogError, match="lost the entry at 1-0"):
        asyncio.run(Replay(SIDES["SI"], log).run(Position("2-0")))


# --- the audit, and the press release ---

# What was published: side, coverage within the operation (None: outside it), period, measure, relation and figure.
# The whole release of 15 March 2024, figure by figure. This list is the source; the claims file is held against it.
OPERATION = ("2024-03-13", "2024-03-15")
PAST_TWO_DAYS = ("2024-03-14", "2024-03-15")
TO_MARCH = "03-01"
PUBLISHED: list[tuple[str, str | None, str, str, str, str, int]] = [
    ("SI", "", *OPERATION, "persons", "equals", 127),
    ("SI", "", *OPERATION, "persons", "more_than", 127 // 2),  # "predominantly" of four citizenships
    ("SI", "", *OPERATION, "smugglers", "equals", 4),
    ("HR", "joint", *PAST_TWO_DAYS, "persons", "equals", 172),
    ("HR", "joint", *PAST_TWO_DAYS, "smugglers", "equals", 3),
    ("HR", "remaining", *PAST_TWO_DAYS, "smugglers", "equals", 6),
    ("SI", None, "2024-01-01", "2024-03-15", "persons", "more_than", 7_850),
    ("SI", None, "2022-01-01", "2022-12-31", "smuggling_cases", "equals", 242),
    ("SI", None, "2023-01-01", "2023-12-31", "smuggling_cases", "equals", 479),
    ("SI", None, "2023-01-01", "2023-12-31", "smugglers", "equals", 557),
    ("SI", None, "2023-01-01", "2023-12-31", "smuggled_persons", "equals", 3_280),
    ("SI", None, "2023-01-01", "2023-12-31", "remanded", "equals", 514),
    ("SI", None, "2023-01-01", f"2023-{TO_MARCH}", "smuggling_cases", "equals", 27),
    ("SI", None, "2024-01-01", f"2024-{TO_MARCH}", "smuggling_cases", "equals", 121),
    ("SI", None, "2024-01-01", f"2024-{TO_MARCH}", "smugglers", "equals", 137),
    ("SI", None, "2024-01-01", f"2024-{TO_MARCH}", "smuggled_persons", "equals", 757),
]
PUBLISHED_BREAKDOWNS = {
    4: {"citizenship": {"UKR": 2, "ROU": 2, "SRB": 1}},
    557: {"origin": {"foreign": 548, "domestic": 9}},
    137: {"origin": {"foreign": 135, "domestic": 2}},
}


def press_release() -> Claims:
    return decode_claims((Path(simulated.__file__).parent / "press_release.toml").read_bytes())


def operation_logs(seed: int) -> dict[str, MemoryLog]:
    logs = {side: MemoryLog() for side in SIDES}
    for submission in simulated.joint_operation(seed):
        logs[submission.side].append_fields(given.entry(submission.event))
    return logs


async def recorded(side: SideSettings, log: MemoryLog, batch: int, end: int) -> MemoryTallyStore:
    """Let a projector of the simplest kind record a log up to an entry."""
    store = MemoryTallyStore(log)
    state = State(side.side, side.zone)
    versions: dict[Key, Version] = {}
    for start, stop in pairwise((*range(0, end, batch), end)):
        arrivals = [arrive(entry.position, entry.fields) for entry in log.entries[start:stop]]
        held = StoredAt("g1", state.checkpoint)
        assert await store.open_turn(held, arrivals[0].position, [arrival.key for arrival in arrivals]) is not None
        changes = fold(state, arrivals, versions)
        assert await store.record(changes)
        state.take(changes)
        versions |= changes.index
    return store


def audited(logs: dict[str, MemoryLog], claims: Claims | None = None, behind: int = 0) -> Verdict:
    async def run() -> Verdict:
        sides = [
            Audited(SIDES[side], log, await recorded(SIDES[side], log, 50, len(log.entries) - behind))
            for side, log in logs.items()
        ]
        return await audit(sides, claims.claims if claims else ())

    return asyncio.run(run())


@pytest.mark.parametrize("seed", [2024, 1, 2])
def test_the_press_release_holds_but_for_the_two_things_that_it_contradicts_itself_in(seed: int) -> None:
    """Of four smugglers it names five, and of the two Romanians the log holds one. Nothing else is found."""
    findings = audited(operation_logs(seed), press_release()).findings
    wrong = [finding for finding in findings if finding.verdict != "confirmed"]

    assert [(one.measure, one.key, one.published, one.rebuilt, one.verdict) for one in wrong] == [
        ("smugglers", "", 4, 4, "inconsistent"),
        ("smugglers", "ROU", 2, 1, "different"),
    ]


def test_the_claims_file_holds_each_published_figure_and_no_other() -> None:
    claims = [
        (
            claim.where["side"],
            claim.where.get("coverage", "") if "operation" in claim.where else None,
            str(claim.first_day),
            str(claim.last_day),
            claim.measure,
            claim.relation,
            claim.published,
        )
        for claim in press_release().claims
    ]

    assert sorted(PUBLISHED, key=str) == sorted(claims, key=str)


def test_the_claims_file_holds_each_published_breakdown_and_no_other() -> None:
    claims = press_release().claims

    assert {claim.published: claim.breakdown for claim in claims if claim.breakdown} == PUBLISHED_BREAKDOWNS


def test_every_published_figure_stands_in_the_words_of_its_claim() -> None:
    """But for "predominantly", which has none, and small numbers, which are written out."""
    written_out = {3: "three", 4: "four", 6: "six"}
    for claim in press_release().claims:
        if claim.published != 127 // 2:
            assert written_out.get(claim.published, f"{claim.published:,}") in claim.text


@pytest.mark.parametrize("behind", [0, 1, 30])
def test_live_tallies_equal_the_rebuilt_ones_at_their_own_position(behind: int) -> None:
    """However far the projector is behind: the replay stops where it stood."""
    logs = operation_logs(2024)
    verdict = audited(logs, behind=behind)

    assert verdict.live_equals_rebuilt
    assert verdict.clean
    assert dict.fromkeys(SIDES, behind) == verdict.entries_behind
    assert {side: f"{len(log.entries)}-0" for side, log in logs.items()} == verdict.position


def test_an_audit_finds_a_live_count_that_was_changed() -> None:
    logs = operation_logs(2024)

    async def run() -> Verdict:
        store = await recorded(SIDES["SI"], logs["SI"], 50, len(logs["SI"].entries))
        cell = next(iter(store._stored.tallies))
        store._stored.tallies[cell] += 1
        return await audit([Audited(SIDES["SI"], logs["SI"], store)], ())

    verdict = asyncio.run(run())

    assert not verdict.clean
    assert [one.live - one.rebuilt for one in verdict.differences] == [1]
