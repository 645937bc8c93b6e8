"""POST /v1/events: what becomes of each report, alone and in a batch, and what the log then holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import pytest
import redis

from schemas.http import BATCH_MAX, TITLES
from services.runtime.settings import Settings
from tests import gateways, given
from tests.gateways import Sender, enrolled, recently, running_gateway
from tests.projectors import log_of, project
from tests.waiting import wait_for

A_MINUTE_AGO = recently(minutes=1)
PROBLEM = {"type", "title", "status", "detail", "code", "pointer", "retryable"}


@pytest.fixture
def address(settings: Settings) -> Iterator[str]:
    with running_gateway(settings) as address:
        yield address


@pytest.fixture
def unit(client: redis.Redis, settings: Settings, address: str) -> Iterator[Sender]:
    with Sender(address, enrolled(client, settings.prefix)) as sender:
        yield sender


@pytest.fixture
def desk(client: redis.Redis, settings: Settings, address: str) -> Iterator[Sender]:
    with Sender(address, enrolled(client, settings.prefix, "desk")) as sender:
        yield sender


def reported(number: int, **head: Any) -> bytes:
    """Return a report that says the same whenever it is built."""
    return gateways.reported(number, **{"time": A_MINUTE_AGO, **head})


def held(client: redis.Redis, settings: Settings, side: str = "SI") -> list[bytes]:
    """Return the events of a side's log."""
    return [fields[b"event"] for _, fields in log_of(client, settings.prefix, side)]


def became(answer: httpx.Response) -> list[str]:
    """Return in a word what became of each report of a batch: the status, of a rejected one the code."""
    assert (202, "application/json") == (answer.status_code, answer.headers["content-type"])
    return [
        result["problem"]["code"] if result["status"] == "rejected" else result["status"]
        for result in answer.json()["results"]
    ]


def assert_problem(found: Any, code: str, status: int, pointer: str) -> None:
    """A problem has every member, and the title of its code."""
    assert PROBLEM == set(found)
    assert (code, status, pointer, False) == (found["code"], found["status"], found["pointer"], found["retryable"])
    assert (f"urn:fieldtally:problem:{code}", TITLES[code]) == (found["type"], found["title"])  # type: ignore[index]


# One report


def test_a_report_is_recorded_then_a_duplicate_then_a_conflict_and_stands_in_the_log_once(
    unit: Sender, client: redis.Redis, settings: Settings
) -> None:
    event = reported(7)
    first, again, other = unit.one(event), unit.one(event), unit.one(reported(7, persons={"AFG": 9}))
    ((position, fields),) = log_of(client, settings.prefix, "SI")
    assert {b"event": event, b"by": b"/SI/SI-MP-07/9f3c2a"} == fields
    assert (201, {"id": given.uid(7), "status": "recorded", "position": position}) == (first.status_code, first.json())
    assert (200, {"id": given.uid(7), "status": "duplicate", "position": position}) == (again.status_code, again.json())
    result = other.json()
    assert_problem(result.pop("problem"), "conflict", 409, "/id")
    assert (409, {"id": given.uid(7), "status": "conflict", "position": position}) == (other.status_code, result)
    assert {"application/json"} == {answer.headers["content-type"] for answer in (first, again, other)}


def test_a_report_that_breaks_a_rule_is_rejected_and_leaves_nothing(
    unit: Sender, client: redis.Redis, settings: Settings
) -> None:
    broken = json.loads(reported(7))
    broken["data"]["persons"][0]["count"] = 0
    answer = unit.one(given.as_json(broken))
    result = answer.json()
    assert_problem(result.pop("problem"), "malformed", 422, "/data/persons/0/count")
    assert (422, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert {"id": given.uid(7), "status": "rejected"} == result
    assert [] == held(client, settings)


def test_the_log_holds_canonical_bytes_and_who_was_authenticated_whatever_was_sent(
    unit: Sender, client: redis.Redis, settings: Settings
) -> None:
    event = reported(7, device="0a11f0")
    written = json.dumps(dict(reversed(json.loads(event).items())), indent=1, ensure_ascii=True).encode()
    assert 201 == unit.one(b"\n " + written + b"\n").status_code
    ((_, fields),) = log_of(client, settings.prefix, "SI")
    assert {b"event": event, b"by": b"/SI/SI-MP-07/9f3c2a"} == fields


def test_a_device_whose_clock_is_off_is_told_and_its_report_is_taken(unit: Sender) -> None:
    fast = unit.one(reported(1), **{"fieldtally-sent": recently(hours=-1)}).json()
    slow = unit.one(reported(2), **{"fieldtally-sent": recently(hours=1)}).json()
    right = unit.one(reported(3), **{"fieldtally-sent": recently()}).json()
    ahead = unit.one(reported(4, time=recently(hours=-2))).json()
    assert ["recorded"] * 4 == [result["status"] for result in (fast, slow, right, ahead)]
    assert 3600 == pytest.approx(fast["clock_off_s"], abs=5)
    assert -3600 == pytest.approx(slow["clock_off_s"], abs=5)
    assert "clock_off_s" not in right
    assert 7200 == pytest.approx(ahead["clock_off_s"], abs=5)


# A batch


def test_a_batch_is_answered_item_by_item_in_its_order_and_a_bad_item_sinks_none(
    unit: Sender, client: redis.Redis, settings: Settings
) -> None:
    good = [reported(number) for number in range(1, 5)]
    unit.one(good[0])
    items = [
        good[1], b"null", good[0], b'"text"', b"[[]]", b"{}", b"1e999", reported(1, persons={"AFG": 9}), good[2],
        b'{"id":"x"}', b'{"id":"%s"}' % given.uid(9).encode(), reported(5, side="HR"), reported(6, unit="SI-MP-08"),
        good[3],
    ]  # fmt: skip
    answer = unit.batch(*items)
    assert [
        "recorded", "malformed", "duplicate", "malformed", "malformed", "malformed", "malformed", "conflict",
        "recorded", "malformed", "malformed", "not-your-side", "not-your-unit", "recorded",
    ] == became(answer)  # fmt: skip
    results = answer.json()["results"]
    named = {0: 2, 2: 1, 7: 1, 8: 3, 10: 9, 11: 5, 12: 6, 13: 4}
    assert [given.uid(named[at]) if at in named else "" for at in range(len(items))] == [r["id"] for r in results]
    assert good == held(client, settings)
    positions = [position for position, _ in log_of(client, settings.prefix, "SI")]
    assert [positions[1], positions[0], positions[0], positions[2], positions[3]] == [
        result["position"] for result in results if "position" in result
    ]
    for result in results:
        assert ("problem" in result) == (result["status"] in ("conflict", "rejected"))
        assert ("position" in result) == (result["status"] != "rejected")


def test_an_empty_batch_is_answered_with_no_results(unit: Sender) -> None:
    answer = unit.batch()
    assert (202, {"results": []}) == (answer.status_code, answer.json())


def test_a_batch_of_the_largest_number_is_recorded_in_its_order(
    unit: Sender, client: redis.Redis, settings: Settings
) -> None:
    events = [reported(number) for number in range(1, BATCH_MAX + 1)]
    assert ["recorded"] * BATCH_MAX == became(unit.batch(*events))
    assert events == held(client, settings)


def test_what_comes_twice_in_one_batch_is_recorded_once_and_a_conflict_is_seen(
    unit: Sender, client: redis.Redis, settings: Settings
) -> None:
    answer = unit.batch(reported(1), reported(1), reported(1, persons={"AFG": 9}), reported(1))
    assert ["recorded", "duplicate", "conflict", "duplicate"] == became(answer)
    assert 1 == len({result["position"] for result in answer.json()["results"]})
    assert [reported(1)] == held(client, settings)


# Once, however often and whenever it comes


def test_of_requests_at_the_same_moment_one_records_and_the_others_find_it(
    client: redis.Redis, settings: Settings, address: str
) -> None:
    token = enrolled(client, settings.prefix)
    with ThreadPoolExecutor(4) as senders:

        def send(_number: int) -> list[Any]:
            with Sender(address, token) as sender:
                return [sender.batch(reported(at), reported(at + 100)).json()["results"] for at in range(1, 21)]

        answers = list(senders.map(send, range(4)))
    for at in range(20):
        for item in range(2):
            results = [answer[at][item] for answer in answers]
            assert ["duplicate"] * 3 + ["recorded"] == sorted(result["status"] for result in results)
            assert 1 == len({result["position"] for result in results})
    assert 40 == len(held(client, settings))


@pytest.mark.parametrize("gateway", ["the same", "another"])
def test_a_report_is_known_again_once_it_is_counted(
    client: redis.Redis,
    settings: Settings,
    gateway: str,
    unit: Sender,
) -> None:
    event, amendment = reported(1), reported(101, amends=1, persons={"AFG": 3})
    positions = [unit.one(each).json()["position"] for each in (event, amendment)]
    project(settings)
    if gateway == "another":
        with running_gateway(settings) as address, Sender(address, enrolled(client, settings.prefix)) as other:
            answers = [other.one(each) for each in (event, amendment, reported(1, persons={"AFG": 9}))]
    else:
        answers = [unit.one(each) for each in (event, amendment, reported(1, persons={"AFG": 9}))]
    assert [("duplicate", positions[0]), ("duplicate", positions[1]), ("conflict", positions[0])] == [
        (answer.json()["status"], answer.json()["position"]) for answer in answers
    ]
    assert [event, amendment] == held(client, settings)


@pytest.mark.parametrize("counted", ["not counted yet", "counted"])
def test_after_an_amendment_the_original_is_a_duplicate_at_its_first_position(
    client: redis.Redis,
    settings: Settings,
    unit: Sender,
    desk: Sender,
    counted: str,
) -> None:
    first = unit.one(reported(1)).json()["position"]
    assert 201 == desk.one(reported(101, amends=1, revision=1, unit="SI-DESK", persons={"AFG": 3})).status_code
    second = unit.one(reported(102, amends=1, revision=2, persons={"AFG": 4})).json()["position"]
    if counted == "counted":
        project(settings)
    again = unit.batch(reported(1), reported(102, amends=1, revision=2, persons={"AFG": 4})).json()["results"]
    assert [("duplicate", first), ("duplicate", second)] == [(one["status"], one["position"]) for one in again]
    # Another event of the same revision with the same content says nothing new; with other content it is a conflict.
    same = unit.one(reported(103, amends=1, revision=2, persons={"AFG": 4}))
    other = unit.one(reported(104, amends=1, revision=2, persons={"AFG": 5}))
    assert [(200, second), (409, second)] == [(one.status_code, one.json()["position"]) for one in (same, other)]
    assert 3 == len(held(client, settings))


def test_an_index_that_went_away_takes_no_report_for_new_that_was_recorded_here(
    client: redis.Redis, settings: Settings, unit: Sender
) -> None:
    first = unit.one(reported(1)).json()["position"]
    project(settings)
    derived = list(client.scan_iter(match=f"{{{settings.prefix}:*}}:g1:*"))
    assert derived
    client.delete(*derived)
    again = unit.one(reported(1))
    assert (200, first) == (again.status_code, again.json()["position"])
    assert [reported(1)] == held(client, settings)


@pytest.mark.parametrize("counted", ["not counted yet", "counted"])
@pytest.mark.parametrize("lost", ["everything", "the log", "the log, and another report stands there"])
def test_what_the_server_has_lost_is_recorded_again_and_never_a_duplicate(
    client: redis.Redis,
    settings: Settings,
    unit: Sender,
    lost: str,
    counted: str,
) -> None:
    key = f"{{{settings.prefix}:SI}}:log"
    first = unit.one(reported(1)).json()["position"]
    if counted == "counted":
        project(settings)
    client.delete(*(client.scan_iter(match=f"{{{settings.prefix}:SI}}:*") if lost == "everything" else [key]))
    if "another" in lost:
        client.xadd(key, {"event": reported(2)}, id=first)
    again = unit.one(reported(1))
    assert (201, "recorded") == (again.status_code, again.json()["status"])
    ((position, fields),) = log_of(client, settings.prefix, "SI")[-1:]
    assert (again.json()["position"], reported(1)) == (position, fields[b"event"])
    assert 200 == unit.one(reported(1)).status_code


# Operations


def opened(ident: int = 50, **more: Any) -> bytes:
    """Return the opening of an operation that goes on now."""
    head = {
        "unit": "SI-DESK",
        "time": recently(minutes=2),
        "starts": recently(days=1)[:10],
        "ends": recently(days=-1)[:10],
    }
    return given.operation_opened(id=ident, **(head | more))


def of_it(number: int, **more: Any) -> bytes:
    """Return a report of that operation."""
    return reported(number, subject=given.OPERATION, **more)


def test_an_operation_opened_in_a_batch_is_known_to_what_follows_it_there(desk: Sender) -> None:
    assert ["unknown-operation", "recorded", "recorded", "unknown-section"] == became(
        desk.batch(of_it(1), opened(), of_it(2), of_it(3, section="lendava"))
    )


def test_an_operation_opened_a_moment_ago_is_known_before_it_is_counted(unit: Sender, desk: Sender) -> None:
    assert ["unknown-operation"] == became(unit.batch(of_it(1)))
    desk.one(opened())
    assert ["recorded"] == became(unit.batch(of_it(1)))
    (operation,) = unit.ask("GET", "/v1/operations").json()["operations"]
    assert (given.OPERATION, ["koper"]) == (operation["operation"], [each["section"] for each in operation["sections"]])
    desk.one(opened(51, amends=50, revision=1, sections={"koper": "joint", "lendava": "joint"}))
    assert ["recorded"] == became(unit.batch(of_it(2, section="lendava")))
    assert ["outside-period"] == became(unit.batch(of_it(3, time=recently(days=4))))
    desk.one(opened(52, amends=50, revision=2, starts=recently(days=9)[:10]))
    assert ["recorded"] == became(unit.batch(of_it(3, time=recently(days=4))))


def test_an_operation_that_was_taken_back_is_unknown_before_and_after_that_is_counted(
    unit: Sender, desk: Sender, settings: Settings
) -> None:
    desk.one(opened())
    project(settings)
    assert ["recorded"] == became(unit.batch(of_it(1)))
    desk.one(given.withdrawal(id=51, amends=50, revision=1, unit="SI-DESK", time=recently(minutes=1)))
    assert [] == unit.ask("GET", "/v1/operations").json()["operations"]
    project(settings)
    numbers = count(2)
    wait_for(
        lambda: ["unknown-operation"] == became(unit.batch(of_it(next(numbers)))), what="the gateway's next look at it"
    )


def test_a_report_that_is_in_the_log_is_a_duplicate_whatever_became_of_its_operation(
    unit: Sender, desk: Sender, settings: Settings
) -> None:
    """Its receipt may have been lost; who was told `rejected` would report it anew, and it would count twice."""
    report, other = of_it(1), of_it(1, persons={"AFG": 9})
    desk.one(opened())
    recorded = unit.one(report).json()
    desk.one(opened(51, amends=50, revision=1, sections={"lendava": "joint"}))
    project(settings)

    numbers = count(2)

    def again() -> list[str]:
        return became(unit.batch(of_it(next(numbers)), report, other))

    wait_for(lambda: again() == ["unknown-section", "duplicate", "unknown-section"], what="the plan to have changed")
    assert recorded["position"] == unit.one(report).json()["position"]


def test_revisions_of_a_plan_that_come_in_the_wrong_order_are_known_by_their_number(unit: Sender, desk: Sender) -> None:
    desk.one(opened())
    desk.one(opened(52, amends=50, revision=2, sections={"lendava": "joint"}))
    desk.one(opened(51, amends=50, revision=1, sections={"koper": "joint"}))
    assert ["recorded", "unknown-section"] == became(unit.batch(of_it(1, section="lendava"), of_it(2)))


def test_an_operation_planned_to_the_calendars_end_is_listed_and_takes_reports(unit: Sender, desk: Sender) -> None:
    assert 201 == desk.one(opened(starts="0001-01-01", ends="9999-12-31")).status_code
    assert ["recorded"] == became(unit.batch(of_it(1)))
    assert ["9999-12-31"] == [one["ends"] for one in unit.ask("GET", "/v1/operations").json()["operations"]]


def test_a_side_knows_its_own_operations_only(
    client: redis.Redis, settings: Settings, desk: Sender, address: str
) -> None:
    desk.one(opened())
    with Sender(address, enrolled(client, settings.prefix, side="HR")) as neighbour:
        assert ["unknown-operation"] == became(neighbour.batch(of_it(1, side="HR")))
        assert [] == neighbour.ask("GET", "/v1/operations").json()["operations"]


# What a device may ask


def test_a_device_learns_which_of_its_numbers_are_in_the_log_to_its_end(
    unit: Sender, settings: Settings, client: redis.Redis
) -> None:
    def standing() -> tuple[Any, ...]:
        found = unit.ask("GET", "/v1/devices/me").json()
        assert ("unit", "SI", "SI-MP-07", "9f3c2a") == tuple(found[name] for name in ("role", "side", "unit", "device"))
        return found["highest"], found["missing"], found["reused"], found["position"]

    assert (0, [], 0, "0-0") == standing()
    unit.batch(reported(1, reportno=3), reported(2, reportno=6), reported(3, reportno=9, device="0a11f0"))
    log = log_of(client, settings.prefix, "SI")
    expected = (6, [[1, 2], [4, 5]], 0, log[-1][0])
    assert expected == standing()
    project(settings)
    assert expected == standing()
    unit.batch(reported(4, reportno=4), reported(5, reportno=6))
    assert (6, [[1, 2], [5, 5]]) == standing()[:2]
    project(settings)
    assert (6, [[1, 2], [5, 5]], 1) == standing()[:3]


def test_the_limits_are_told_in_the_headers(unit: Sender) -> None:
    answer = unit.ask("HEAD", "/v1/events")
    limits = {name: text for name, text in answer.headers.items() if name.startswith("fieldtally-")}
    assert (204, b"") == (answer.status_code, answer.content)
    assert {
        "fieldtally-event-bytes-max": "65536",
        "fieldtally-request-bytes-max": "1048576",
        "fieldtally-batch-max": "500",
    } == limits
