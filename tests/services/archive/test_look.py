"""What deserves a look: each kind is found where it is, and not where it is not."""

from __future__ import annotations

import pytest

from services.archive import look
from services.archive.look import Item, look_at
from tests import given
from tests.services.archive.engines import opened, position


def found(si: list[bytes], hr: list[bytes] | None = None) -> list[Item]:
    with opened({"SI": [given.entry(raw) for raw in si], "HR": [given.entry(raw) for raw in hr or ()]}) as engine:
        return look_at(engine)


def at(side: str, *numbers: int) -> list[str]:
    return [f"{side}:{position(number)}" for number in numbers]


def test_nothing_is_worth_a_look_in_a_quiet_log() -> None:
    assert [] == found(
        [given.smuggler_arrest(id=1, case="K-1"), given.custody(id=2, case="K-1"), given.apprehension(id=3)]
    )


def test_parked_entries_are_counted_by_their_reason() -> None:
    items = found([b"{", given.apprehension(id=1), b"null", given.apprehension(id=1, section="other")])
    assert [
        Item("parked", "SI", at("SI", 4), "1 entry parked as conflict; `fieldtally parked list` has them"),
        Item("parked", "SI", at("SI", 1, 3), "2 entries parked as malformed; `fieldtally parked list` has them"),
    ] == sorted(items, key=lambda item: item.text)


def test_a_parked_entry_that_was_requeued_is_settled_on_whichever_side_it_is_now() -> None:
    requeued = {b"by": f"requeue/SI:{position(1)}/somebody".encode()}
    strange, other = given.apprehension(id=1, side="HR"), given.apprehension(id=2, side="HR")
    with opened(
        {
            "SI": [given.entry(strange), given.entry(other), given.entry(b"null")],
            "HR": [given.entry(strange) | requeued, given.entry(other) | {b"by": b"requeue"}],
        }
    ) as engine:
        items = look_at(engine)
    assert [
        Item("parked", "SI", at("SI", 3), "1 entry parked as malformed; `fieldtally parked list` has them"),
        Item("parked", "SI", at("SI", 2), "1 entry parked as wrong-side; `fieldtally parked list` has them"),
    ] == sorted(items, key=lambda item: item.text)


def test_a_case_that_was_opened_twice_is_found_and_one_that_a_withdrawal_leaves_opened_once_is_not() -> None:
    twice = [given.smuggler_arrest(id=number, case="K-7") for number in (1, 2)]
    assert [Item("case-opened-twice", "SI", at("SI", 1, 2), "case K-7 was opened 2 times")] == found(twice)
    assert [] == found([*twice, given.withdrawal(amends=2)])


def test_a_case_that_nobody_opened_is_found() -> None:
    items = found([given.smuggler_arrest(id=1, case="K-8", opens_case=False), given.custody(id=2, case="K-8")])
    assert [Item("case-never-opened", "SI", at("SI", 1, 2), "case K-8 is spoken of and was never opened")] == items


def test_more_remanded_than_arrested_in_a_case_is_found() -> None:
    arrest = given.smuggler_arrest(id=1, case="K-9", smugglers={"UKR": 1, "SRB": 1})
    enough, beyond = given.custody(id=2, case="K-9", remanded={"UKR": 2}), given.custody(id=3, case="K-9")
    assert [] == found([arrest, enough])
    items = found([arrest, enough, beyond])
    assert [Item("remanded-above-arrested", "SI", at("SI", 1, 2, 3), "case K-9: 3 remanded, 2 arrested")] == items


def _patrols(
    *,
    later: str = "03:40:00",
    coverage: str = "joint",
    persons: dict[str, int] | None = None,
    section: str = "joint-sections",
) -> tuple[list[bytes], list[bytes]]:
    """One event at the border, told by both sides of a mixed patrol."""
    subject = given.OPERATION
    si = [
        given.operation_opened(id=1, sections={"koper": "joint"}),
        given.apprehension(id=2, subject=subject, time="2024-03-14T03:12:00Z", persons={"SYR": 2, "AFG": 1}),
    ]
    hr = [
        given.operation_opened(id=11, side="HR", sections={"joint-sections": coverage}),
        given.apprehension(
            id=12, side="HR", subject=subject, section=section, time=f"2024-03-14T{later}Z",
            persons=persons or {"AFG": 1, "SYR": 2},
        ),
    ]  # fmt: skip
    return si, hr


@pytest.mark.parametrize("later", ["03:12:00", "03:40:00", "03:42:00", "02:42:00"])
def test_one_event_told_by_both_sides_is_found(later: str) -> None:
    [item] = found(*_patrols(later=later))
    assert ("reported-twice", "HR,SI", [*at("HR", 2), *at("SI", 2)]) == (item.kind, item.side, item.positions)
    assert "apprehension of SI-HR-2024-03 reported by both sides? sections joint-sections and koper" in item.text


def test_what_only_resembles_it_is_not_found() -> None:
    assert [] == found(*_patrols(later="03:42:01"))
    assert [] == found(*_patrols(later="02:41:59"))
    assert [] == found(*_patrols(coverage="remaining"))
    assert [] == found(*_patrols(persons={"AFG": 1, "SYR": 3}))
    assert [] == found(*_patrols(section="elsewhere"))


def test_counts_that_are_reported_all_the_time_are_no_sign() -> None:
    si, hr = _patrols()
    often = [
        given.apprehension(
            id=number, subject=given.OPERATION, time="2024-03-14T03:10:00Z", persons={"SYR": 2, "AFG": 1}
        )
        for number in range(20, 23)
    ]
    assert 3 == len(found([*si, *often[:2]], hr))
    assert [] == found([*si, *often], hr)


def test_the_same_section_on_both_sides_needs_no_plan() -> None:
    si, hr = _patrols(section="koper")
    assert ["reported-twice"] == [item.kind for item in found(si[1:], hr[1:])]


def test_the_same_section_outside_an_operation_is_looked_at_as_well() -> None:
    one, other = (
        given.apprehension(id=number, side=side, section="dragonja", time=f"2024-03-14T03:{minute}:00Z")
        for number, side, minute in ((1, "SI", 10), (2, "HR", 25))
    )
    [item] = found([one], [other])
    assert (
        "apprehension of no operation reported by both sides? sections dragonja and dragonja, 15 minutes" in item.text
    )
    assert [] == found([one], [given.apprehension(id=2, side="HR", section="buje", time="2024-03-14T03:10:00Z")])


def test_a_long_list_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "ITEMS_MAX", 3)
    items = found([given.custody(id=number, case=f"K-{number}") for number in range(1, 8)])
    assert [3, "and 4 more"] == [len([item for item in items if item.kind == "case-never-opened"]) - 1, items[3].text]
