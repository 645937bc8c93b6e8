"""Who is meant is read with care, a device has one token, a rotated one ends in time, no revocation is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis
from msgspec.structs import replace

from schemas.principals import Principal, Role
from services.cli import enrolment
from services.cli.enrolment import Named, Principals, Revoked, read_named, sides_of, standing
from services.runtime.errors import UsageError
from services.runtime.settings import read_settings
from services.store.connection import connect
from services.store.principals import RedisPrincipals
from tests.asynchronous import asynchronous

SETTINGS = read_settings({})
NOON = datetime(2024, 3, 14, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UNIT = Principal(role="unit", side="SI", unit="SI-MP-07", device="9f3c2a", enrolled=NOON)
MEANT = Named((), "SI-MP-07", "9f3c2a")
OLD, NEW, NEWER = "a" * 64, "b" * 64, "c" * 64


def rotated(principals: Principals, moment: datetime, overlap: timedelta = DAY, *, digest: str = NEW) -> Principals:
    """Rotate the token of UNIT's device; return all principals then."""
    changed, _ = enrolment.rotate(principals, MEANT, SETTINGS, digest, moment, overlap)
    return {**principals, **changed}


def revoked(principals: Principals, moment: datetime, named: Named = MEANT) -> Principals:
    changed, _ = enrolment.revoke(principals, named, SETTINGS, moment)
    return {**principals, **changed}


def taken(principals: Principals, moment: datetime) -> set[str]:
    """The digests of the tokens that a gateway takes at a moment."""
    return {digest for digest, one in principals.items() if one.valid_at(moment)}


def standings(principals: Principals, moment: datetime) -> dict[str, str]:
    return {digest: standing(one, principals, moment) for digest, one in principals.items()}


def never() -> str:
    raise AssertionError("no device name was to be drawn")


# --- what was typed ---


@pytest.mark.parametrize(
    ("text", "sides", "device", "expected"),
    [
        ("SI-MP-07", [], "", Named((), "SI-MP-07", "")),
        (" SI-MP-07 ", [], "", Named((), "SI-MP-07", "")),
        ("/SI-MP-07", [], "", Named((), "SI-MP-07", "")),
        ("SI-MP-07", ["SI"], "9f3c2a", Named(("SI",), "SI-MP-07", "9f3c2a")),
        ("SI-MP-07/9f3c2a", [], "", MEANT),
        ("SI-MP-07/9f3c2a", [], "9f3c2a", MEANT),
        ("/SI/SI-MP-07/9f3c2a", [], "", Named(("SI",), "SI-MP-07", "9f3c2a")),
        ("/SI/SI-MP-07/9f3c2a", ["SI"], "", Named(("SI",), "SI-MP-07", "9f3c2a")),
        ("SI/SI-MP-07/9f3c2a", [], "", Named(("SI",), "SI-MP-07", "9f3c2a")),
        ("SI/SI-MP-07", [], "", Named(("SI",), "SI-MP-07", "")),
        ("/SI,HR/wall/1", ["HR", "SI"], "", Named(("SI", "HR"), "wall", "1")),
        ("wall", ["SI,HR", "SI"], "", Named(("SI", "HR"), "wall", "")),
    ],
)
def test_unit_device_and_path_are_read(text: str, sides: list[str], device: str, expected: Named) -> None:
    assert expected == read_named(SETTINGS, text, sides, device)


@pytest.mark.parametrize(
    ("text", "sides", "device", "said"),
    [
        ("", [], "", "unit ''"),
        ("/", [], "", "unit ''"),
        ("a b", [], "", "unit 'a b'"),
        ("SI_MP_07", [], "", "1 to 64 characters of A-Z a-z 0-9 -"),
        ("SI-MP-07/", [], "", "write UNIT, UNIT/DEVICE or /SIDE/UNIT/DEVICE"),
        ("SI-MP-07/a/b/c", [], "", "write UNIT, UNIT/DEVICE or /SIDE/UNIT/DEVICE"),
        ("SI-MP-07/ä", [], "", "device 'ä'"),
        ("SI-MP-07", [], "x" * 65, "1 to 64 characters"),
        ("SI-MP-07/9f3c2a", [], "77aa01", "--device says 77aa01: which is it?"),
        ("/SI/SI-MP-07/9f3c2a", ["HR"], "", "--side says HR: which is it?"),
        ("SI", [], "", "that is a side"),
        ("si", ["SI"], "", "such as SI-MP-07"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, sides: list[str], device: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_named(SETTINGS, text, sides, device)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("unit", "sides", "role", "expected"),
    [
        ("SI-MP-07", (), "unit", "SI"),
        ("HR-PU-03", (), "desk", "HR"),
        ("SI-MP-07", ("SI",), "unit", "SI"),
        ("mobile-4", ("HR",), "unit", "HR"),
        ("wall", ("HR", "SI"), "viewer", "SI,HR"),
        ("SI-wall", ("SI", "HR"), "auditor", "SI,HR"),
        ("HR-liaison", ("SI",), "viewer", "SI"),
    ],
)
def test_the_side_is_that_of_the_name_or_of_the_option(
    unit: str, sides: tuple[str, ...], role: Role, expected: str
) -> None:
    assert expected == sides_of(SETTINGS, Named(sides, unit, ""), role)


@pytest.mark.parametrize(
    ("unit", "sides", "role", "said"),
    [
        ("MP-07", (), "unit", "say it with --side, one of SI, HR"),
        ("AT-MP-07", (), "unit", "AT is no side in FIELDTALLY_SIDES; add it there"),
        ("SIMP07", (), "unit", "say it with --side"),
        ("HQ-1x", (), "desk", "desk 'HQ-1x': HQ is no side in FIELDTALLY_SIDES"),
        ("HQSI", (), "desk", "desk 'HQSI': its side cannot be seen from its name; say it with --side"),
        ("WALL2", (), "viewer", "viewer 'WALL2': its side cannot be seen from its name"),
        ("WALL2", (), "auditor", "say it with --side, one of SI, HR, or several, each with --side"),
        ("si-mp-07", (), "unit", "do you mean 'SI-MP-07'?"),
        ("si-mp-07", ("SI",), "unit", "do you mean 'SI-MP-07'?"),
        ("SI-MP-07", ("XX",), "unit", "no side 'XX': FIELDTALLY_SIDES has SI, HR"),
        ("mobile-4", ("si",), "unit", "no side 'si': do you mean 'SI'?"),
        ("HR-PU-03", ("SI",), "unit", "is of side HR by its name, --side says SI"),
        ("mobile-4", ("SI", "HR"), "unit", "a unit reports for one side"),
        ("HQ", ("SI", "HR"), "desk", "a desk reports for one side"),
    ],
)
def test_a_side_that_cannot_be_is_refused(unit: str, sides: tuple[str, ...], role: Role, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        sides_of(SETTINGS, Named(sides, unit, ""), role)
    assert said in str(raised.value)


# --- enrolled ---


def test_a_device_name_is_drawn_until_it_is_one_that_the_unit_never_had() -> None:
    """A revoked device's too: its reports are in the log under that name."""
    known = revoked({OLD: UNIT}, NOON)
    draws = iter(["9f3c2a", "9f3c2a", "77aa01"])
    _, (new, was_known) = enrolment.enrol(known, replace(UNIT, device=""), NEW, NOON, lambda: next(draws))
    assert ("77aa01", False) == (new.device, was_known)


def test_the_same_device_of_another_unit_or_side_is_another_device() -> None:
    for other in (replace(UNIT, unit="SI-MP-08"), replace(UNIT, side="HR")):
        assert ({NEW: other}, (other, False)) == enrolment.enrol({OLD: UNIT}, other, NEW, NOON, never)


@pytest.mark.parametrize("role", ["unit", "desk"])
def test_a_device_whose_token_is_valid_is_not_enrolled_again(role: Role) -> None:
    with pytest.raises(UsageError, match="`fieldtally devices rotate SI-MP-07/9f3c2a`"):
        enrolment.enrol({OLD: UNIT}, replace(UNIT, role=role), NEW, NOON, never)


def test_nor_for_several_sides_one_of_which_it_has() -> None:
    wall = replace(UNIT, role="viewer", side="SI", unit="wall")
    with pytest.raises(UsageError, match="/SI/wall/9f3c2a is enrolled as viewer"):
        enrolment.enrol({OLD: wall}, replace(wall, side="SI,HR"), NEW, NOON, never)


def test_a_device_whose_token_has_ended_may_be_enrolled_again() -> None:
    for ended in (revoked({OLD: UNIT}, NOON), {OLD: replace(UNIT, expires=NOON)}):
        assert ({NEW: UNIT}, (UNIT, True)) == enrolment.enrol(ended, UNIT, NEW, NOON, never)


@pytest.mark.parametrize("wrong", [{"unit": "SI-Mp-07"}, {"device": "9F3C2A"}])
def test_two_spellings_of_one_name_are_not_enrolled(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"is enrolled already as '(SI-MP-07|9f3c2a)'"):
        enrolment.enrol({OLD: UNIT}, replace(UNIT, **wrong), NEW, NOON, never)


# --- rotated ---


def test_after_a_rotation_both_tokens_are_taken_until_the_overlap_is_over() -> None:
    known = rotated({OLD: UNIT}, NOON)
    assert {OLD, NEW} == taken(known, NOON)
    assert {OLD, NEW} == taken(known, NOON + DAY - timedelta(microseconds=1))
    assert {NEW} == taken(known, NOON + DAY)
    assert {OLD: "rotated", NEW: "active"} == standings(known, NOON)
    assert {OLD: "expired", NEW: "active"} == standings(known, NOON + DAY)


def test_without_overlap_the_old_token_ends_at_once_whatever_a_gateways_clock_shows() -> None:
    known = rotated({OLD: UNIT}, NOON, timedelta(0))
    assert {NEW} == taken(known, NOON - DAY) == taken(known, NOON)
    assert {OLD: "revoked", NEW: "active"} == standings(known, NOON)


def test_the_new_token_is_of_the_same_principal_and_knows_when_it_was_made() -> None:
    assert replace(UNIT, enrolled=NOON + HOUR) == rotated({OLD: UNIT}, NOON + HOUR)[NEW]


def test_a_rotation_prolongs_neither_the_old_token_nor_the_new_one() -> None:
    ends = NOON + 2 * HOUR
    known = rotated({OLD: replace(UNIT, expires=ends)}, NOON + HOUR)
    assert [ends, ends] == [known[OLD].expires, known[NEW].expires]


def test_a_second_rotation_does_not_prolong_the_first() -> None:
    known = rotated(rotated({OLD: UNIT}, NOON), NOON + HOUR, digest=NEWER)
    assert {OLD, NEW, NEWER} == taken(known, NOON + HOUR)
    assert {NEW, NEWER} == taken(known, NOON + DAY)
    assert {NEWER} == taken(known, NOON + DAY + HOUR)
    assert {OLD: "rotated", NEW: "rotated", NEWER: "active"} == standings(known, NOON + HOUR)


def test_the_new_token_is_the_newest_although_this_clock_is_behind() -> None:
    known = rotated({OLD: UNIT}, NOON - HOUR)
    assert {OLD: "rotated", NEW: "active"} == standings(known, NOON)


@pytest.mark.parametrize("ended", [replace(UNIT, state="revoked"), replace(UNIT, expires=NOON)])
def test_what_is_not_valid_is_not_rotated(ended: Principal) -> None:
    with pytest.raises(UsageError, match="`fieldtally devices enrol /SI/SI-MP-07/9f3c2a`"):
        rotated({OLD: ended}, NOON)


@pytest.mark.parametrize("changed", [{"role": "viewer", "side": "SI,HR"}, {"role": "desk", "side": "HR"}, {}])
def test_what_is_advised_for_a_token_that_ended_is_taken_as_it_stands(changed: dict[str, Any]) -> None:
    ended = replace(UNIT, unit="mobile", device="1", expires=NOON, **changed)
    with pytest.raises(UsageError) as raised:
        enrolment.rotate({OLD: ended}, Named((), "mobile", ""), SETTINGS, NEW, NOON, DAY)
    source, *role = str(raised.value).partition("devices enrol ")[2].partition("`")[0].split(" --role ")
    named = read_named(SETTINGS, source, ())
    assert (ended.side, ended.unit, ended.device) == (sides_of(SETTINGS, named, ended.role), named.unit, named.device)
    assert [ended.role] == (role or ["unit"])


def test_a_unit_of_one_device_is_enough_to_rotate_one_of_several_is_not() -> None:
    second = replace(UNIT, device="77aa01")
    named = Named((), "SI-MP-07", "")
    _, done = enrolment.rotate({OLD: UNIT, NEW: replace(second, state="revoked")}, named, SETTINGS, NEWER, NOON, DAY)
    assert ("9f3c2a", NOON + DAY) == (done.principal.device, done.old_until)
    with pytest.raises(UsageError, match="/SI/SI-MP-07/77aa01 or /SI/SI-MP-07/9f3c2a"):
        enrolment.rotate({OLD: UNIT, NEW: second}, named, SETTINGS, NEWER, NOON, DAY)


# --- revoked ---


def test_a_revocation_ends_all_tokens_of_a_device_and_keeps_when() -> None:
    known = revoked(rotated({OLD: UNIT}, NOON), NOON + HOUR)
    assert set() == taken(known, NOON)
    assert {OLD: "revoked", NEW: "revoked"} == standings(known, NOON + HOUR)
    assert [NOON + HOUR, NOON + HOUR] == [one.expires for one in known.values()]
    assert [NOON, NOON] == [one.enrolled for one in known.values()]


def test_revoking_again_changes_nothing_and_says_so() -> None:
    known = revoked({OLD: UNIT}, NOON)
    again = enrolment.revoke(known, MEANT, SETTINGS, NOON + HOUR)
    assert ({}, [Revoked("/SI/SI-MP-07/9f3c2a", 0)]) == again


def test_an_expired_token_that_is_revoked_ended_when_it_expired() -> None:
    known = revoked({OLD: replace(UNIT, expires=NOON)}, NOON + HOUR)
    assert ("revoked", NOON) == (known[OLD].state, known[OLD].expires)


def test_a_unit_is_revoked_with_all_its_devices_and_nobody_else() -> None:
    others = {NEWER: replace(UNIT, unit="SI-MP-08")}
    known = revoked({OLD: UNIT, NEW: replace(UNIT, device="77aa01"), **others}, NOON, Named((), "SI-MP-07", ""))
    assert {NEWER} == taken(known, NOON)


def test_in_a_hurry_capitals_do_not_matter() -> None:
    assert set() == taken(revoked({OLD: UNIT}, NOON, Named((), "si-mp-07", "9F3C2A")), NOON)


def test_a_side_that_is_no_longer_configured_can_still_be_revoked() -> None:
    austria = replace(UNIT, side="AT")
    assert set() == taken(revoked({OLD: austria}, NOON, Named(("AT",), "SI-MP-07", "")), NOON)


def test_the_same_name_on_two_sides_needs_the_side() -> None:
    known = {OLD: replace(UNIT, unit="mobile"), NEW: replace(UNIT, unit="mobile", side="HR")}
    with pytest.raises(UsageError, match="for HR and for SI: say with --side"):
        revoked(known, NOON, Named((), "mobile", ""))
    assert {OLD} == taken(revoked(known, NOON, Named(("HR",), "mobile", "")), NOON)


def test_of_several_sides_one_is_enough_unless_another_has_just_that_one() -> None:
    wall = replace(UNIT, role="viewer", side="SI,HR", unit="wall")
    one = Named(("HR",), "wall", "")
    assert set() == taken(revoked({OLD: wall}, NOON, one), NOON)
    assert {OLD} == taken(revoked({OLD: wall, NEW: replace(wall, side="HR")}, NOON, one), NOON)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (Named((), "SI-MP-7", ""), "no unit 'SI-MP-7' is enrolled: do you mean 'SI-MP-07'?"),
        (Named((), "x", ""), "`fieldtally devices list` shows those that are"),
        (Named(("HR",), "SI-MP-07", ""), "no unit 'SI-MP-07' is enrolled for side HR: it is for SI"),
        (Named((), "77AA01", ""), "that is a device, do you mean 'SI-MP-07/77aa01'?"),
        (Named(("XX",), "SI-MP-07", ""), "no side 'XX'"),
        (Named((), "SI-MP-07", "123"), "SI-MP-07 has no device '123'; it has 77aa01, 9f3c2a"),
    ],
)
def test_an_unknown_device_is_named_with_those_that_there_are(named: Named, said: str) -> None:
    known = {OLD: UNIT, NEW: replace(UNIT, device="77aa01", state="revoked")}
    for change in (
        lambda: enrolment.revoke(known, named, SETTINGS, NOON),
        lambda: enrolment.rotate(known, named, SETTINGS, NEWER, NOON, DAY),
    ):
        with pytest.raises(UsageError) as raised:
            change()
        assert said in str(raised.value)


# --- two operators at once, on a real server ---


@asynccontextmanager
async def store(url: str, prefix: str) -> AsyncIterator[RedisPrincipals]:
    client = connect(url)
    try:
        yield RedisPrincipals(client, url, prefix)
    finally:
        await client.aclose()


Decide = Callable[[Principals], tuple[Mapping[str, Principal], Any]]


def after(client: redis.Redis, prefix: str, somebody: Decide, decide: Decide) -> Decide:
    """Return what decides as `decide` does; between its first look and its writing, somebody else changes rows."""
    waiting = [somebody]

    def decide_second(known: Principals) -> tuple[Mapping[str, Principal], Any]:
        decided = decide(known)
        if waiting:
            for digest, one in waiting.pop()(known)[0].items():
                client.hset(f"{prefix}:principals", digest, msgspec.json.encode(one))
        return decided

    return decide_second


def rotating(digest: str) -> Decide:
    return lambda known: enrolment.rotate(known, MEANT, SETTINGS, digest, NOON, DAY)


def revoking(known: Principals) -> tuple[Mapping[str, Principal], Any]:
    return enrolment.revoke(known, MEANT, SETTINGS, NOON)


@asynchronous
async def test_a_revocation_amid_a_rotation_stands(server_url: str, client: redis.Redis, prefix: str) -> None:
    async with store(server_url, prefix) as principals:
        await principals.change(lambda _: ({OLD: UNIT}, None))
        with pytest.raises(UsageError, match="no token of SI-MP-07/9f3c2a is valid"):
            await principals.change(after(client, prefix, revoking, rotating(NEW)))
        assert {OLD: "revoked"} == standings(await principals.everyone(), NOON)


@asynchronous
async def test_a_rotation_amid_a_revocation_is_revoked_too(server_url: str, client: redis.Redis, prefix: str) -> None:
    async with store(server_url, prefix) as principals:
        await principals.change(lambda _: ({OLD: UNIT}, None))
        await principals.change(after(client, prefix, rotating(NEW), revoking))
        assert {OLD: "revoked", NEW: "revoked"} == standings(await principals.everyone(), NOON)


@asynchronous
async def test_of_two_rotations_at_once_both_tokens_are_known(
    server_url: str, client: redis.Redis, prefix: str
) -> None:
    async with store(server_url, prefix) as principals:
        await principals.change(lambda _: ({OLD: UNIT}, None))
        await principals.change(after(client, prefix, rotating(NEW), rotating(NEWER)))
        assert {OLD: "rotated", NEW: "rotated", NEWER: "active"} == standings(await principals.everyone(), NOON)


@asynchronous
async def test_of_two_enrolments_of_one_device_at_once_one_is_refused(
    server_url: str, client: redis.Redis, prefix: str
) -> None:
    def enrolling(digest: str) -> Decide:
        return lambda known: enrolment.enrol(known, UNIT, digest, NOON, never)

    async with store(server_url, prefix) as principals:
        with pytest.raises(UsageError, match="its token is valid"):
            await principals.change(after(client, prefix, enrolling(OLD), enrolling(NEW)))
        assert {OLD: UNIT} == await principals.everyone()


@asynchronous
async def test_whatever_is_rotated_meanwhile_nothing_is_valid_after_a_revocation(server_url: str, prefix: str) -> None:
    async with store(server_url, prefix) as principals:
        await principals.change(lambda _: ({OLD: UNIT}, None))
        rotations = [principals.change(rotating(f"{number:064x}")) for number in range(8)]
        revocation = principals.change(revoking)
        outcomes = await asyncio.gather(*rotations[:4], revocation, *rotations[4:], return_exceptions=True)
        assert isinstance(outcomes[4], list)
        assert set() == taken(await principals.everyone(), NOON)
