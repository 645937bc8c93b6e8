"""An outbox that comes back from an old copy, or begins anew, notices and says so; nothing is lost, nothing doubled."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from schemas.vocabulary import REPORTNO_MAX, Position
from services.field import FieldUnit
from services.runtime.settings import Settings
from tests import projectors
from tests.gateways import enrolled, running_gateway
from tests.services.field.patrols import (
    Request,
    Stub,
    joined,
    link,
    persons,
    receipt,
    recorded,
    standing,
)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[str]:
    with running_gateway(settings) as address:
        yield address


@pytest.fixture
def token(client: redis.Redis, prefix: str) -> str:
    return enrolled(client, prefix)


def test_an_old_copy_of_an_outbox_carries_on_and_loses_and_doubles_nothing(
    tmp_path: Path, gateway: str, token: str, client: redis.Redis, prefix: str, settings: Settings
) -> None:
    outbox, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    unit = joined(outbox, gateway, token)
    for _ in range(3):
        unit.report(persons(SYR=1))
    assert unit.flush(0)
    waiting = unit.report(persons(AFG=2))
    unit.close()
    shutil.copy(outbox, copy)

    unit = FieldUnit(outbox)
    first = unit.pending()[0]
    original = unit.find(first.id)
    unit.amend(original.id, persons(AFG=3))
    unit.report(persons(MAR=5))
    assert unit.flush(0)
    assert 6 == unit.status().last_number
    unit.close()

    told: list[str] = []
    unit = FieldUnit(copy, on_notice=told.append)
    offline = unit.report(persons(BGD=7))  # takes number 5, which the lost copy has used
    mine = unit.amend(waiting.id, persons(AFG=4))  # takes revision 1, which the lost copy has used
    assert unit.flush(0)
    (notice,) = unit.status().notices
    assert [notice.text] == told
    assert "restored from an old copy" in notice.text
    assert "up to number 6" in notice.text
    assert "Enter nothing again, unless you know that the log has not got it" in notice.text
    assert ["conflict"] == [report.problem.code for report in unit.rejected() if report.problem]
    assert 2 == unit.amend(mine.id, persons(AFG=4)).revision
    assert 8 == unit.report(persons(PAK=1)).number
    assert unit.flush(0)
    assert ("delivered", []) == (unit.find(offline.id).state, unit.rejected())
    assert 1 == len(unit.status().notices)
    unit.close()

    projectors.project(settings)
    projectors.assert_counted(client, prefix, "SI")
    tallies = projectors.stored(client, prefix, "SI").tallies
    persons_by = {cell.split("|")[-1]: count for cell, count in tallies.items() if "|persons|" in cell}
    assert {"SYR": 3, "AFG": 4, "MAR": 5, "BGD": 7, "PAK": 1} == persons_by


def test_a_new_outbox_of_a_device_that_is_not_new_goes_on_above_its_numbers(
    tmp_path: Path, gateway: str, token: str
) -> None:
    before = joined(tmp_path / "lost.db", gateway, token)
    for _ in range(3):
        before.report(persons())
    before.flush(0)
    before.close()
    unit = joined(tmp_path / "outbox.db", gateway, token)
    unit.report(persons())
    assert unit.flush(0)
    assert "never sent number 1" in unit.status().notices[0].text
    assert 4 == unit.report(persons()).number
    unit.close()


def test_an_ordinary_life_is_no_restored_copy(tmp_path: Path, gateway: str, token: str) -> None:
    for life in range(4):
        unit = joined(tmp_path / "outbox.db", gateway, token)
        for _ in range(life):
            unit.amend(unit.report(persons()).id, persons(SYR=2))
        assert unit.flush(0)
        assert () == unit.status().notices
        unit.close()


def told_apart(tmp_path: Path, stub: Stub, reports: int, highest: int, *missing: tuple[int, int]) -> list[str]:
    """Return what is noticed when the gateway has these numbers, and the outbox has reports that it never sent."""
    unit = joined(tmp_path / "outbox.db", stub.url)
    for _ in range(reports):
        unit.report(persons())
    stub.stands = lambda: standing(highest, *missing)
    assert unit.flush(0)
    assert max(reports, highest) + 1 == unit.report(persons()).number
    notices = [notice.text for notice in unit.status().notices]
    unit.close()
    return notices


@pytest.mark.parametrize(
    ("reports", "highest", "missing", "noticed"),
    [
        (2, 0, (), 0),
        (2, 5, (), 1),
        (2, 2, (), 1),
        (5, 3, (), 1),  # numbered past what the lost copy had used
        (2, 9, ((1, 8),), 1),
        (5, 3, ((1, 3),), 0),
    ],
)
def test_numbers_that_this_copy_never_sent_are_noticed(
    tmp_path: Path, stub: Stub, reports: int, highest: int, missing: tuple[tuple[int, int], ...], noticed: int
) -> None:
    assert noticed == len(told_apart(tmp_path, stub, reports, highest, *missing))


def test_reports_that_the_log_has_lost_are_sent_again(tmp_path: Path, stub: Stub) -> None:
    """As after a failover to a copy of the log that had not got them yet."""
    unit = joined(tmp_path / "outbox.db", stub.url)
    at = iter(range(1, 100))

    def record(request: Request) -> object:
        return receipt(*(recorded(ident, position=Position(f"170000000000{next(at)}-0")) for ident in request.ids))

    stub.answer = record
    reports = [str(unit.report(persons()).id) for _ in range(4)]
    assert unit.flush(0)
    unit.close()

    # The log ends at 3, without the last three: it was set back, so its position is lower than what was told before.
    # What comes again has the same fate, so nobody may find it: of a number that is never counted, once is enough.
    stub.stands = lambda: standing(1, position="1700000000003-0") if len(stub.sent) == 1 else standing(5, (2, 4))
    for sent in ([*reports[1:]], []):
        unit = FieldUnit(tmp_path / "outbox.db")
        new = str(unit.report(persons()).id)
        assert unit.flush(0)
        assert [*sent, new] == stub.sent[-1]
        assert "has lost reports of /SI/SI-MP-07/9f3c2a that it had recorded (3)" in unit.status().notices[0].text
        assert 1 == len(unit.status().notices)
        unit.close()


def test_what_the_log_has_lost_is_sent_again_though_nothing_new_is_reported_each_time_that_it_loses_it(
    tmp_path: Path, gateway: str, token: str, client: redis.Redis, prefix: str
) -> None:
    clock = [0.0]
    unit = joined(tmp_path / "outbox.db", gateway, token, monotonic=lambda: clock[0])
    for _ in range(3):
        unit.report(persons())
    assert unit.flush(0)
    for loss in (1, 2, 3):
        log = projectors.log_of(client, prefix, "SI")
        lost = [fields[b"event"] for _, fields in log[1:]]
        set_back(client, prefix, 1)
        clock[0] += 3_601.0
        assert unit.flush(0)
        assert lost == [fields[b"event"] for _, fields in projectors.log_of(client, prefix, "SI")[1:]]
        assert [True] * loss == ["has lost reports" in notice.text for notice in unit.status().notices]
    unit.close()


def test_what_an_earlier_device_had_sent_is_sent_again_too_when_the_log_has_lost_something(
    tmp_path: Path, gateway: str, token: str, client: redis.Redis, prefix: str
) -> None:
    """The gateway tells a token nothing of another device, so it cannot be asked for; what it has counts once."""
    clock = [0.0]
    joined(tmp_path / "outbox.db", gateway, token).close()
    unit = FieldUnit(tmp_path / "outbox.db", monotonic=lambda: clock[0])
    unit.report(persons(SYR=1))
    unit.report(persons(SYR=2))
    assert unit.flush(0)
    next_token = enrolled(client, prefix, device="aaaaaa")
    FieldUnit.join(tmp_path / "outbox.db", link(gateway, next_token, "/SI/SI-MP-07/aaaaaa"))
    unit.report(persons(SYR=3))
    assert unit.flush(0)
    whole = [fields[b"event"] for _, fields in projectors.log_of(client, prefix, "SI")]
    set_back(client, prefix, 1)
    clock[0] += 3_601.0
    assert unit.flush(0)
    assert whole == [fields[b"event"] for _, fields in projectors.log_of(client, prefix, "SI")]
    (notice,) = unit.status().notices
    assert "lost reports of /SI/SI-MP-07/aaaaaa that it had recorded (1)" in notice.text
    assert "another device of the unit (2)" in notice.text
    unit.close()


def test_what_another_unit_had_sent_is_left_alone(tmp_path: Path, stub: Stub) -> None:
    """Its token is gone, so it would be rejected."""
    unit = joined(tmp_path / "outbox.db", stub.url)
    other = unit.report(persons())
    assert unit.flush(0)
    FieldUnit.join(tmp_path / "outbox.db", link(stub.url, source="/SI/SI-MP-08/9f3c2a"))
    answer = standing()
    stub.stands = lambda: answer._replace(body=answer.body.replace(b"SI-MP-07", b"SI-MP-08"))
    mine = unit.report(persons())
    assert unit.flush(0)
    unit.close()
    unit = FieldUnit(tmp_path / "outbox.db")
    unit.report(persons())
    assert unit.flush(0)
    sent = [ident for request in stub.sent for ident in request]
    assert (1, 2) == (sent.count(str(other.id)), sent.count(str(mine.id)))
    unit.close()


def set_back(client: redis.Redis, prefix: str, entries: int) -> None:
    """Set the log back to its first entries, as an older copy of the server's file would."""
    log = projectors.log_of(client, prefix, "SI")
    name = f"{{{prefix}:SI}}:log"
    client.delete(name)
    for position, fields in log[:entries]:
        client.xadd(name, fields, id=position)


# numbers that no device comes to


@pytest.mark.parametrize(
    ("highest", "missing", "next_number"),
    [
        (10**12, ((3, 10**12 - 1),), 3),
        (10**12, ((1, 10**12 - 1),), 3),
        (10**12, ((8, 10**12 - 1),), 8),
        (10**12, ((2, 2), (8, 10**11), (10**11 + 2, 10**12 - 1)), 8),
        (10**9 - 1, ((3, 10**9 - 2),), 10**9),
    ],
)
def test_no_number_in_the_log_stops_a_report_and_an_implausible_one_is_not_followed(
    tmp_path: Path, stub: Stub, highest: int, missing: tuple[tuple[int, int], ...], next_number: int
) -> None:
    clock = [0.0]
    unit = joined(tmp_path / "outbox.db", stub.url, monotonic=lambda: clock[0])
    for _ in range(2):
        unit.report(persons())
    assert unit.flush(0)
    stub.stands = lambda: standing(highest, *missing)
    for number in (next_number, next_number + 1):
        clock[0] += 3_601.0
        assert unit.flush(0)
        assert number == unit.report(persons()).number
        noticed = [notice.text for notice in unit.status().notices if "which no device comes to" in notice.text]
        assert (highest > 10**9) == len(noticed)  # said once
    unit.close()


def test_an_outbox_that_has_followed_an_implausible_number_goes_on_above_its_own(tmp_path: Path) -> None:
    unit = joined(tmp_path / "outbox.db")
    for _ in range(2):
        unit.report(persons())
    unit._outbox._db.execute("UPDATE devices SET last_number = ?", (REPORTNO_MAX,))
    assert 2 == unit.status().last_number
    assert [3, 4] == [unit.report(persons()).number for _ in range(2)]
    unit.close()


def test_notices_stay_until_they_are_put_away(tmp_path: Path, stub: Stub) -> None:
    unit = joined(tmp_path / "outbox.db", stub.url)
    stub.stands = lambda: standing(5)
    assert unit.flush(0)
    assert 1 == len(unit.status().notices)
    assert 1 == unit.dismiss()
    assert ((), 0) == (unit.status().notices, unit.dismiss())
    unit.close()


def test_a_token_of_another_device_sends_nothing(tmp_path: Path, stub: Stub) -> None:
    """Two devices' numbers must not be taken for one's."""
    unit = joined(tmp_path / "outbox.db", stub.url)
    answer = standing(3)
    stub.stands = lambda: answer._replace(body=answer.body.replace(b"9f3c2a", b"aaaaaa"))
    unit.report(persons())
    assert not unit.flush(0)
    assert "another device's" in unit.status().trouble
    assert [] == stub.sent
    unit.close()
