"""What the door knows of the log's end, which no projector has come to yet, and which it may not have written itself.

Here two gateways serve one log, or one is started anew, and nobody counts unless a test says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import redis

from schemas import codec
from schemas.vocabulary import START, Position
from services.gateway.tail import Tail, identity_of, name_of
from services.runtime.settings import Settings
from tests import gateways, given
from tests.gateways import Sender, enrolled, recently, running_gateway
from tests.projectors import feed, log_of, project
from tests.services.gateway.test_events_route import became

A_MINUTE_AGO = recently(minutes=1)
TODAY = datetime.now(UTC).date()
OPERATION = "SI-HR-2024-03"


class Doors(NamedTuple):
    """Two gateways of one log; a unit, another unit of its side, and their desk, at either."""

    unit: Sender
    unit_elsewhere: Sender
    other_elsewhere: Sender
    desk: Sender
    desk_elsewhere: Sender


@pytest.fixture
def doors(client: redis.Redis, settings: Settings) -> Iterator[Doors]:
    unit, desk = enrolled(client, settings.prefix), enrolled(client, settings.prefix, "desk")
    other = enrolled(client, settings.prefix, unit="SI-MP-08")
    with (
        running_gateway(settings) as here,
        running_gateway(settings) as there,
        Sender(here, unit) as unit_here,
        Sender(there, unit) as unit_there,
        Sender(there, other) as other_there,
        Sender(here, desk) as desk_here,
        Sender(there, desk) as desk_there,
    ):
        yield Doors(unit_here, unit_there, other_there, desk_here, desk_there)


@contextmanager
def once_counted(settings: Settings, sender: Sender, *, counted: bool) -> Iterator[Sender]:
    """Count everything, and yield a gateway that has seen nothing else; or else the same sender."""
    if not counted:
        yield sender
        return
    project(settings)
    token = sender._client.headers["authorization"].removeprefix("Bearer ")
    with running_gateway(settings) as address, Sender(address, token) as fresh:
        yield fresh


def reported(number: int, **head: Any) -> bytes:
    """Return a report that says the same whenever it is built."""
    return gateways.reported(number, **{"time": A_MINUTE_AGO, **head})


def opened(number: int, *sections: str, revision: int = 0, amends: int | None = None) -> bytes:
    """Return the opening of an operation that lasts, over these sections."""
    about = {} if amends is None else {"amends": amends, "revision": revision}
    return given.operation_opened(
        id=number, unit="SI-DESK", device="d", starts=str(TODAY - timedelta(3)), ends=str(TODAY + timedelta(3)),
        sections=dict.fromkeys(sections, "joint"), time=A_MINUTE_AGO,
        subject=OPERATION, **about,
    )  # fmt: skip


def test_what_another_gateway_has_recorded_is_known_here_at_once(
    doors: Doors, client: redis.Redis, settings: Settings
) -> None:
    assert ["recorded"] * 2 == became(doors.unit.batch(reported(1), reported(2)))
    assert ["duplicate", "conflict", "recorded"] == became(
        doors.unit_elsewhere.batch(reported(1), reported(2, persons={"AFG": 9}), reported(3))
    )
    assert ["not-your-report"] == became(
        doors.other_elsewhere.batch(reported(11, unit="SI-MP-08", amends=1, revision=1))
    )
    assert ["duplicate"] == became(doors.unit.batch(reported(3)))
    assert 3 == len(log_of(client, settings.prefix, "SI"))


def test_a_gateway_that_is_started_anew_knows_what_it_had_recorded(client: redis.Redis, settings: Settings) -> None:
    token, other = enrolled(client, settings.prefix), enrolled(client, settings.prefix, unit="SI-MP-08")
    with running_gateway(settings) as address, Sender(address, token) as unit:
        assert ["recorded"] * 2 == became(unit.batch(reported(1), reported(2)))
    with running_gateway(settings) as address, Sender(address, other) as stranger, Sender(address, token) as unit:
        assert ["not-your-report"] == became(stranger.batch(reported(11, unit="SI-MP-08", amends=1, revision=1)))
        assert ["duplicate", "conflict"] == became(unit.batch(reported(1), reported(2, persons={"AFG": 9})))


def test_a_recorded_report_is_a_duplicate_whatever_the_plan_says_since(doors: Doors) -> None:
    report = reported(1, subject=OPERATION, section="koper")
    assert ["recorded"] == became(doors.desk.batch(opened(9, "koper")))
    assert ["recorded"] == became(doors.unit.batch(report))
    assert ["recorded"] == became(doors.desk.batch(opened(19, "novo-mesto", amends=9, revision=1)))
    assert ["duplicate", "unknown-section"] == became(
        doors.unit_elsewhere.batch(report, reported(2, subject=OPERATION, section="koper"))
    )


def test_a_direct_write_is_known_too(doors: Doors, client: redis.Redis, settings: Settings) -> None:
    assert ["recorded"] == became(doors.unit.batch(reported(1)))
    feed(client, settings.prefix, "SI", [given.entry(b"no event"), given.entry(reported(2))])
    assert ["duplicate"] * 2 == became(doors.unit.batch(reported(2), reported(1)))


def test_of_the_same_report_twice_the_first_one_counts_wherever_each_is_known_from(
    doors: Doors, client: redis.Redis, settings: Settings
) -> None:
    first = doors.unit.one(reported(1)).json()["position"]
    with once_counted(settings, doors.unit, counted=True) as unit:
        feed(client, settings.prefix, "SI", [given.entry(reported(1, persons={"AFG": 9}))])
        assert ["recorded"] == became(unit.batch(reported(2)))
        answer = unit.batch(reported(1))
        assert ["duplicate"] == became(answer)
        assert first == answer.json()["results"][0]["position"]


@pytest.mark.parametrize("counted", [False, True], ids=["in-the-tail", "counted"])
def test_an_older_revision_that_comes_once_more_is_a_duplicate(
    doors: Doors, client: redis.Redis, settings: Settings, *, counted: bool
) -> None:
    versions = [reported(1)] + [
        reported(10 + revision, amends=1, revision=revision, persons={"SYR": revision}) for revision in (1, 2, 3)
    ]
    recorded = doors.unit.batch(*versions)
    assert ["recorded"] * 4 == became(recorded)
    with once_counted(settings, doors.unit_elsewhere, counted=counted) as unit:
        again = unit.batch(*versions)
    assert ["duplicate"] * 4 == became(again)
    assert [one["position"] for one in recorded.json()["results"]] == [
        one["position"] for one in again.json()["results"]
    ]
    assert 4 == len(log_of(client, settings.prefix, "SI"))


@pytest.mark.parametrize("counted", [False, True], ids=["in-the-tail", "counted"])
def test_an_id_is_one_reports_alone(doors: Doors, client: redis.Redis, settings: Settings, *, counted: bool) -> None:
    assert ["recorded"] * 3 == became(doors.unit.batch(reported(1), reported(2), reported(11, amends=1, revision=1)))
    clashing = [
        reported(11, amends=2, revision=1),  # an amendment's id for another amendment
        reported(11, amends=1, revision=2),  # for the next one of the same report
        reported(11),  # for a report of its own
        reported(2, amends=1, revision=2),  # a report's id for an amendment
    ]
    with once_counted(settings, doors.unit_elsewhere, counted=counted) as unit:
        for one in clashing:  # one by one, since what is looked up for one of them is known to the others
            assert ["conflict"] == became(unit.batch(one))
    assert 3 == len(log_of(client, settings.prefix, "SI"))


def test_an_id_is_one_reports_alone_within_a_batch_too(doors: Doors, client: redis.Redis, settings: Settings) -> None:
    answer = doors.unit.batch(
        reported(1), reported(2), reported(11, amends=1, revision=1), reported(11, amends=2, revision=1), reported(11)
    )
    assert ["recorded"] * 3 + ["conflict"] * 2 == became(answer)
    assert "another report has this id" in answer.json()["results"][3]["problem"]["detail"]
    assert 3 == len(log_of(client, settings.prefix, "SI"))


@pytest.mark.parametrize("where", ["same-batch", "same-gateway", "another-gateway", "counted"])
def test_an_amendment_of_an_amendment_is_refused_with_the_originals_id(
    doors: Doors, settings: Settings, where: str
) -> None:
    before = [reported(1), reported(11, amends=1, revision=1)]
    wrong = reported(12, amends=11, revision=1)
    if where == "same-batch":
        answer = doors.unit.batch(*before, wrong)
    else:
        assert ["recorded"] * 2 == became(doors.unit.batch(*before))
        at = doors.unit if where == "same-gateway" else doors.unit_elsewhere
        with once_counted(settings, at, counted=where == "counted") as unit:
            answer = unit.batch(wrong)
    assert "names-an-amendment" == became(answer)[-1]
    refused = answer.json()["results"][-1]["problem"]
    assert "/amends" == refused["pointer"]
    assert given.uid(1) in refused["detail"]


def test_an_opening_that_is_not_recorded_lets_nothing_in(doors: Doors) -> None:
    assert ["recorded"] == became(doors.desk.batch(opened(9, "koper")))
    inside = {"subject": OPERATION, "unit": "SI-DESK", "device": "d"}
    assert ["conflict", "unknown-section", "recorded"] == became(
        doors.desk_elsewhere.batch(
            opened(9, "novo-mesto"),
            reported(1, section="novo-mesto", **inside),
            reported(2, section="koper", **inside),
        )
    )


def test_an_opening_lets_in_what_comes_after_it_in_its_batch_and_not_what_came_before(doors: Doors) -> None:
    inside = {"subject": OPERATION, "unit": "SI-DESK", "device": "d", "section": "koper"}
    assert ["unknown-operation", "recorded", "recorded"] == became(
        doors.desk.batch(reported(1, **inside), opened(9, "koper"), reported(2, **inside))
    )


def test_an_older_revision_of_a_plan_at_the_logs_end_hides_no_newer_one(doors: Doors, settings: Settings) -> None:
    assert ["recorded"] * 2 == became(
        doors.desk.batch(opened(9, "koper"), opened(12, "novo-mesto", amends=9, revision=2))
    )
    project(settings)
    assert ["recorded"] == became(doors.desk.batch(opened(11, "ilirska-bistrica", amends=9, revision=1)))
    assert ["recorded", "unknown-section"] == became(
        doors.unit.batch(
            reported(1, subject=OPERATION, section="novo-mesto"),
            reported(2, subject=OPERATION, section="ilirska-bistrica"),
        )
    )
    (open_now,) = doors.unit.ask("GET", "/v1/operations").json()["operations"]
    assert ["novo-mesto"] == [one["section"] for one in open_now["sections"]]


def test_while_something_is_under_way_the_logs_length_tells_less_and_after_a_failure_nothing() -> None:
    tail = Tail()
    assert tail.lacks(0, START, 0)
    tail.is_read(10)
    assert [True, False, True] == [tail.lacks(length, START, 0) for length in (9, 10, 11)]
    assert [True, False, False, True] == [tail.lacks(length, START, 1) for length in (9, 10, 11, 12)]
    assert tail.lacks(10, Position("5-0"), 1)
    event = codec.decode(reported(1))
    tail.append(identity_of(event), name_of(event), Position("11-0"))
    assert not tail.lacks(11, START, 0)
    tail.is_unsure()
    assert tail.lacks(11, START, 0) and tail.lacks(11, START, 1)
