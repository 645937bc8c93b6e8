"""The hours of a day that is over: read from the log when somebody asks, and equal to the tallies of that day."""

from __future__ import annotations

import httpx
import pytest
import redis

from services.runtime.settings import Settings
from tests import given
from tests.gateways import enrolled
from tests.projectors import feed, project, stored
from tests.services.control_room.rooms import running_room

DAY = "2024-03-14"


def asked(address: str, token: str, query: str) -> httpx.Response:
    """Ask for the hours."""
    return httpx.get(f"{address}/api/hours{query}", headers={"authorization": f"Bearer {token}"})


def test_the_hours_of_a_day_add_up_to_its_tallies(client: redis.Redis, settings: Settings, prefix: str) -> None:
    for side, entries in given.seeded_log(7, 600).items():
        feed(client, prefix, side, entries)
    project(settings)
    token = enrolled(client, prefix, "viewer", "SI,HR", unit="WALL")
    with running_room(settings) as served:
        found = asked(served.address, token, f"?day={DAY}").json()
    for side in ("SI", "HR"):
        by_measure: dict[str, int] = {}
        for cell, count in stored(client, prefix, side).tallies.items():
            _, operation, section, day, measure, _ = cell.split("|")
            if day == DAY:
                by_measure[f"{operation}|{section}|{measure}"] = (
                    by_measure.get(f"{operation}|{section}|{measure}", 0) + count
                )
        by_hour: dict[str, int] = {}
        for name, count in found[side]["counts"].items():
            assert int(name.partition("|")[0]) % 3_600 == 0
            rest = name.partition("|")[2]
            by_hour[rest] = by_hour.get(rest, 0) + count
        assert by_measure, "a day without reports shows nothing"
        assert by_measure == by_hour


def test_a_viewer_of_one_side_gets_the_hours_of_that_side(client: redis.Redis, settings: Settings, prefix: str) -> None:
    token = enrolled(client, prefix, "viewer", "SI")
    with running_room(settings) as served:
        assert ["SI"] == list(asked(served.address, token, f"?day={DAY}").json())
        assert 401 == asked(served.address, "nobody", f"?day={DAY}").status_code


@pytest.mark.parametrize("query", ["", "?day=", "?day=14.3.2024", "?day=0001-01-01", "?day=9999-12-31"])
def test_what_is_no_day_is_refused_in_words(client: redis.Redis, settings: Settings, prefix: str, query: str) -> None:
    token = enrolled(client, prefix, "viewer", "SI")
    with running_room(settings) as served:
        answer = asked(served.address, token, query)
    assert (400, "day") == (answer.status_code, answer.json()["pointer"])
