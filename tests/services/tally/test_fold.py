"""The outcome table, row by row: what becomes of an entry, given what the log holds for its report."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
import pytest

from schemas.tallies import Parked
from schemas.vocabulary import Position
from services.tally.fold import FOLD_VERSION, Amendment, arrive
from services.tally.operations import coverage_by_section
from tests import given
from tests.given import Folded, apprehension, operation_closed, operation_opened, withdrawal

SYR = "SI||koper|2024-03-14|persons|SYR"
AFG = "SI||koper|2024-03-14|persons|AFG"
INCIDENT = "SI||koper|2024-03-14|apprehensions|"

FIRST = apprehension(id=1, persons={"SYR": 4})
SECOND = apprehension(amends=1, revision=1, persons={"AFG": 3})
THIRD = apprehension(amends=1, revision=2, persons={"SYR": 5})


# --- nothing is held for the report ---


def test_a_first_report_counts() -> None:
    folded = Folded(FIRST)

    assert folded.tallies == {INCIDENT: 1, SYR: 4}
    assert folded.outcomes == {"applied": 1}


def test_an_amendment_before_its_original_counts_and_is_flagged() -> None:
    folded = Folded(SECOND)

    assert folded.tallies == {INCIDENT: 1, AFG: 3}
    assert folded.outcomes == {"applied": 1, "original_missing": 1}
    assert folded.index[given.key(1)].original_missing


def test_a_withdrawal_before_its_original_counts_nothing_and_is_flagged() -> None:
    folded = Folded(withdrawal(amends=1))

    assert folded.tallies == {}
    assert folded.outcomes == {"applied": 1, "original_missing": 1}


# --- where the original stands ---


def test_an_amended_report_remembers_where_its_original_stands() -> None:
    assert Folded(FIRST).index[given.key(1)].original is None
    assert Folded(FIRST, SECOND).index[given.key(1)].original == "1-0"
    assert Folded(FIRST, SECOND, THIRD).index[given.key(1)].original == "1-0"
    assert Folded(FIRST, SECOND, FIRST).index[given.key(1)].original == "1-0"


def test_an_original_that_comes_after_its_amendment_is_remembered_where_it_came() -> None:
    folded = Folded(SECOND)

    assert folded.index[given.key(1)].original is None
    folded.take(FIRST)
    assert folded.index[given.key(1)].original == "2-0"
    folded.take(THIRD)
    assert folded.index[given.key(1)].original == "2-0"


# --- where amendments stand ---


def test_each_amendment_is_known_by_its_own_id_whether_it_counts_or_not() -> None:
    older = apprehension(id=12, amends=1, revision=1, persons={"AFG": 3})
    newer = apprehension(id=13, amends=1, revision=2, persons={"SYR": 5})

    assert {
        given.key(13): Amendment(Position("2-0"), replaced=Position("1-0")),
        given.key(12): Amendment(Position("3-0"), replaced=Position("3-0")),  # a higher one had come: nothing changed
    } == Folded().take(FIRST, newer, older, older, newer).amendments


def test_an_amendment_says_which_version_it_replaced() -> None:
    older = apprehension(id=12, amends=1, revision=1, persons={"AFG": 3})
    newer = apprehension(id=13, amends=1, revision=2, persons={"SYR": 5})
    replaced = {key: amendment.replaced for key, amendment in Folded().take(older, FIRST, newer).amendments.items()}

    assert {given.key(12): None, given.key(13): "1-0"} == replaced


def test_what_is_parked_is_not_known_as_an_amendment() -> None:
    older = apprehension(id=12, amends=1, revision=1, persons={"AFG": 3})
    conflicting = apprehension(id=13, amends=1, revision=1, persons={"SYR": 5})

    assert [given.key(12)] == list(Folded().take(older, conflicting).amendments)


# --- the same revision is held ---


def test_the_same_report_again_is_a_duplicate_and_changes_nothing_else() -> None:
    folded = Folded(FIRST)
    changes = folded.take(FIRST)

    assert changes.cells == {}
    assert changes.index == {}
    assert folded.outcomes == {"applied": 1, "duplicate": 1}


def test_the_same_content_from_another_sender_under_another_number_is_a_duplicate() -> None:
    again = apprehension(id=1, persons={"SYR": 4}, unit="SI-DESK", device="hq1", reportno=77)

    assert Folded(FIRST, again).outcomes == {"applied": 1, "duplicate": 1}


def test_the_same_amendment_under_another_id_is_a_duplicate() -> None:
    again = apprehension(id=55, amends=1, revision=1, persons={"AFG": 3})

    assert Folded(FIRST, SECOND, again).outcomes == {"applied": 1, "replaced": 1, "duplicate": 1}


def test_the_same_content_in_other_bytes_is_a_duplicate() -> None:
    folded = Folded(FIRST)
    folded.take(given.as_json(msgspec.json.decode(FIRST)))

    assert folded.outcomes == {"applied": 1, "duplicate": 1}


@pytest.mark.parametrize(
    "other",
    [
        apprehension(id=1, persons={"SYR": 5}),
        apprehension(id=1, persons={"SYR": 4}, section="ljubljana"),
        apprehension(id=1, persons={"SYR": 4}, subject=given.OPERATION),
        apprehension(id=1, persons={"SYR": 4}, time="2024-03-14T03:12:10Z"),
        given.nil_report(id=1),
    ],
    ids=["count", "section", "operation", "time", "type"],
)
def test_other_content_under_the_same_revision_is_parked_and_the_first_stands(other: bytes) -> None:
    folded = Folded(FIRST, other)

    assert folded.tallies == {INCIDENT: 1, SYR: 4}
    assert folded.outcomes == {"applied": 1, "conflict": 1}
    assert {position: parked.reason for position, parked in folded.parked.items()} == {"2-0": "conflict"}


def test_a_conflict_says_where_the_first_stands_and_holds_the_digest_of_its_bytes() -> None:
    other = apprehension(id=1, persons={"SYR": 5})
    detail = "revision 0 of this report stands at 1-0 with other content"

    assert Folded(FIRST, other).parked == {
        "2-0": Parked("conflict", detail, blake2b(other, digest_size=16).hexdigest())
    }


def test_a_conflict_does_not_become_the_version_in_force() -> None:
    """So the same conflicting bytes conflict again, and the first content is still a duplicate."""
    other = apprehension(id=1, persons={"SYR": 5})

    assert Folded(FIRST, other, other, FIRST).outcomes == {"applied": 1, "conflict": 2, "duplicate": 1}


# --- another revision is held ---


def test_a_higher_revision_replaces_what_counted() -> None:
    folded = Folded(FIRST, SECOND)

    assert folded.tallies == {INCIDENT: 1, AFG: 3}
    assert folded.outcomes == {"applied": 1, "replaced": 1}


def test_a_revision_may_be_left_out() -> None:
    assert Folded(FIRST, THIRD).tallies == {INCIDENT: 1, SYR: 5}


def test_an_amendment_may_move_a_report_to_another_day_section_and_operation() -> None:
    moved = apprehension(amends=1, time="2024-03-15T12:00:00Z", section="ljubljana", subject=given.OPERATION)
    cell = f"SI|{given.OPERATION}|ljubljana|2024-03-15"

    assert Folded(FIRST, moved).tallies == {f"{cell}|apprehensions|": 1, f"{cell}|persons|SYR": 1}


def test_an_amendment_may_change_the_type() -> None:
    assert Folded(FIRST, given.nil_report(amends=1)).tallies == {"SI||koper|2024-03-14|nil_reports|": 1}


def test_a_lower_revision_is_superseded() -> None:
    folded = Folded(FIRST, THIRD, SECOND)

    assert folded.tallies == {INCIDENT: 1, SYR: 5}
    assert folded.outcomes == {"applied": 1, "replaced": 1, "superseded": 1}


def test_an_awaited_original_is_superseded_and_clears_the_flag() -> None:
    folded = Folded(SECOND, FIRST)

    assert folded.tallies == {INCIDENT: 1, AFG: 3}
    assert folded.outcomes == {"applied": 1, "superseded": 1}
    assert not folded.index[given.key(1)].original_missing


def test_an_original_that_comes_twice_clears_the_flag_once() -> None:
    assert Folded(SECOND, FIRST, FIRST).outcomes == {"applied": 1, "superseded": 2}


def test_a_lower_amendment_is_not_the_original_that_is_awaited() -> None:
    assert Folded(THIRD, SECOND).outcomes == {"applied": 1, "superseded": 1, "original_missing": 1}


def test_a_higher_revision_still_awaits_the_original() -> None:
    folded = Folded(SECOND, THIRD)
    assert folded.outcomes == {"applied": 1, "replaced": 1, "original_missing": 1}

    folded.take(FIRST)
    assert folded.outcomes == {"applied": 1, "replaced": 1, "superseded": 1}


def test_a_withdrawn_report_counts_nothing() -> None:
    assert Folded(FIRST, withdrawal(amends=1)).tallies == {}


def test_a_withdrawn_report_may_be_amended_back() -> None:
    assert Folded(FIRST, withdrawal(amends=1), THIRD).tallies == {INCIDENT: 1, SYR: 5}


def test_a_report_is_identified_by_the_original_not_by_the_amendments_own_id() -> None:
    """A report whose id is that of another report's amendment is a report of its own."""
    assert Folded(SECOND, apprehension(id=1_001, reportno=1)).outcomes == {"applied": 2, "original_missing": 1}


# --- what is no event of this side ---


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({b"event": b"\xff"}, "malformed", "at $: "),
        ({b"event": b""}, "malformed", "at $: "),
        ({}, "malformed", "at the entry: the entry has no field `event`"),
        ({b"by": b"x"}, "malformed", "at the entry: the entry has no field `event`"),
        ({b"event": FIRST, b"data": b"x"}, "malformed", "at the entry: the entry has a field other than"),
        ({b"event": FIRST.replace(b"4", b"0", 1)}, "malformed", "apprehension.v1 at $"),
        ({b"event": FIRST.replace(b".v1", b".v2")}, "unknown-type", "org.fieldtally.apprehension.v2 at $.type: "),
        ({b"event": apprehension(side="HR")}, "wrong-side", "an event of side HR in the log of SI"),
    ],
)
def test_what_is_no_event_of_this_side_is_parked_with_its_reason(
    fields: dict[bytes, bytes], reason: str, detail: str
) -> None:
    folded = Folded()
    folded.take_entries([fields])
    (parked,) = folded.parked.values()

    assert reason == parked.reason
    assert parked.detail.startswith(detail)
    assert parked.digest == blake2b(fields.get(b"event", b""), digest_size=16).hexdigest()
    assert folded.outcomes == {reason.replace("-", "_"): 1}
    assert folded.tallies == {} == folded.numbers


def test_who_was_authenticated_may_stand_beside_the_event() -> None:
    folded = Folded()
    folded.take_entries([given.entry(FIRST, by="SI-MP-07")])

    assert folded.outcomes == {"applied": 1}


def test_a_parked_entry_does_not_hold_up_the_next() -> None:
    assert Folded(b"{", FIRST, b"}").outcomes == {"malformed": 2, "applied": 1}


def test_the_checkpoint_is_at_the_last_entry_and_counts_parked_ones() -> None:
    checkpoint = Folded(FIRST, b"{").state.checkpoint

    assert (checkpoint.position, checkpoint.entries, checkpoint.fold_version) == ("2-0", 2, FOLD_VERSION)
    assert checkpoint.counters.parked == 1


def test_a_batch_of_nothing_changes_nothing() -> None:
    folded = Folded(FIRST)
    before = folded.state.checkpoint
    changes = folded.take()

    assert before == changes.checkpoint
    assert (changes.cells, changes.index, changes.devices, changes.operations, changes.parked) == ({}, {}, {}, {}, {})


def test_changes_hold_absolute_counts() -> None:
    changes = Folded(FIRST).take(apprehension(id=2, persons={"SYR": 2}))

    assert sorted(changes.cells.values()) == [2, 6]


def test_a_cell_that_comes_to_nothing_is_recorded_as_zero_and_then_left_out() -> None:
    folded = Folded(FIRST)
    changes = folded.take(withdrawal(amends=1))

    assert set(changes.cells.values()) == {0}
    assert folded.tallies == {}


def test_a_cell_that_ends_as_it_began_is_not_among_the_changes() -> None:
    changes = Folded(FIRST).take(SECOND, THIRD, apprehension(amends=1, revision=3, persons={"SYR": 4}))

    assert changes.cells == {}


def test_the_index_names_the_position_of_the_version_in_force() -> None:
    assert Folded(FIRST, THIRD, SECOND).index[given.key(1)].position == "2-0"
    assert Folded(THIRD, FIRST).index[given.key(1)].position == "1-0"


# --- numbers ---


def test_numbers_are_kept_per_unit_and_device() -> None:
    events = [
        apprehension(id=number, unit=unit, device=device, reportno=reportno)
        for number, (unit, device, reportno) in enumerate([("A", "a", 1), ("A", "b", 3), ("B", "a", 2)], 1)
    ]

    assert Folded(*events).numbers == {"A/a": (1, []), "A/b": (3, [(1, 2)]), "B/a": (2, [(1, 1)])}


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        (FIRST, "a duplicate"),
        (apprehension(id=1, persons={"SYR": 5}), "a conflict"),
        (apprehension(amends=1), "an amendment"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_number_counts_as_received_whatever_becomes_of_its_report(event: bytes, seen: str) -> None:
    made = msgspec.json.decode(event) | {"reportno": 5}
    folded = Folded(FIRST, given.as_json(made))

    assert folded.numbers == {"SI-MP-07/9f3c2a": (5, [(2, 4)])}, seen


def test_a_number_that_was_seen_on_another_report_is_flagged_and_both_count() -> None:
    folded = Folded(apprehension(id=1, reportno=7), apprehension(id=2, reportno=7))

    assert folded.outcomes == {"applied": 2, "number_reused": 1}
    assert {"SI-MP-07/9f3c2a": 1} == {name: device.reused for name, device in folded.state.devices.items()}
    assert folded.tallies[INCIDENT] == 2


def test_a_report_that_comes_again_does_not_reuse_its_number() -> None:
    assert "number_reused" not in Folded(FIRST, FIRST, SECOND, FIRST, SECOND, THIRD, SECOND).outcomes


def test_the_last_position_is_that_of_the_devices_last_entry() -> None:
    folded = Folded(FIRST, apprehension(id=2, device="0a11f0"), FIRST)

    assert {device: numbers.last_position for device, numbers in folded.state.devices.items()} == {
        "SI-MP-07/9f3c2a": "3-0",
        "SI-MP-07/0a11f0": "2-0",
    }


# --- operations ---

EARLY = operation_opened(id=1, time="2024-03-12T08:00:00Z", sections={"koper": "joint"})
LATE = operation_opened(id=2, time="2024-03-12T09:00:00Z", sections={"koper": "remaining"})
CLOSED = operation_closed(id=3, time="2024-03-15T22:00:00Z")


@pytest.mark.parametrize("events", [(EARLY, LATE, CLOSED), (LATE, CLOSED, EARLY), (CLOSED, EARLY, LATE)])
def test_the_plan_in_force_is_the_latest_by_its_own_time_whatever_the_order(events: tuple[bytes, ...]) -> None:
    folded = Folded(*events)

    assert coverage_by_section(folded.state.operations) == {(given.OPERATION, "koper"): "remaining"}
    assert msgspec.to_builtins(folded.plans)[given.OPERATION][1] == "2024-03-15"


def test_two_plans_of_one_time_are_settled_by_their_ids() -> None:
    other = operation_opened(id=2, time="2024-03-12T08:00:00Z", sections={"koper": "remaining"})

    assert Folded(EARLY, other).plans == Folded(other, EARLY).plans


def test_two_closings_of_one_time_are_settled_by_their_ids() -> None:
    other = operation_closed(id=4, time="2024-03-15T22:00:00Z", closed="2024-03-14")

    assert Folded(CLOSED, other).plans == Folded(other, CLOSED).plans


def test_an_amended_plan_replaces_its_original() -> None:
    amended = operation_opened(amends=1, time="2024-03-12T08:00:00Z", sections={"ljubljana": "joint"})

    assert coverage_by_section(Folded(EARLY, amended).state.operations) == {(given.OPERATION, "ljubljana"): "joint"}


def test_when_the_latest_plan_is_withdrawn_the_one_before_is_in_force_again() -> None:
    assert Folded(EARLY).plans == Folded(EARLY, LATE, withdrawal(amends=2)).plans


def test_an_operation_whose_only_plan_is_withdrawn_has_none() -> None:
    assert Folded(EARLY, withdrawal(amends=1)).plans == {}


def test_a_closing_that_is_withdrawn_leaves_the_operation_open() -> None:
    assert Folded(EARLY).plans == Folded(EARLY, CLOSED, withdrawal(amends=3)).plans


def test_an_amendment_may_move_a_plan_to_another_operation() -> None:
    moved = operation_opened(amends=1, subject="SI-2025", time="2024-03-12T08:00:00Z")

    assert set(Folded(EARLY, moved).plans) == {"SI-2025"}


def test_arrive_names_the_report_by_its_original() -> None:
    assert [given.key(1)] * 2 == [arrive("1-0", given.entry(event)).key for event in (FIRST, SECOND)]  # type: ignore[arg-type]
