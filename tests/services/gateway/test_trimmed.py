"""The door of a log of which a part is only in the archive: what was reported then is known, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import redis

from schemas.vocabulary import Position
from services.runtime.settings import Settings
from tests import gateways, given
from tests.archives import archive_now, folder_of, small_pieces, trim_now
from tests.gateways import Sender, enrolled, recently, running_gateway
from tests.projectors import SI_ONLY, feed, log_of, project
from tests.services.gateway.test_events_route import became

A_MINUTE_AGO = recently(minutes=1)


def reported(number: int, **head: object) -> bytes:
    """Return a report that says the same whenever it is built."""
    return gateways.reported(number, **{"time": A_MINUTE_AGO, **head})


class Door:
    """A gateway of a side with an archive, and who reports there."""

    def __init__(self, settings: Settings, client: redis.Redis, unit: Sender, other: Sender) -> None:
        self.settings = settings
        self.client = client
        self.unit = unit
        self.other = other
        self.archives = settings.archive_dir

    @property
    def folder(self) -> Path:
        """The folder of its archive."""
        return folder_of(self.archives, self.settings.prefix)

    def archive(self) -> None:
        """Archive everything."""
        assert self.settings.redis_url
        archive_now(self.settings.redis_url, self.settings.prefix, self.archives)

    def trim(self, until: str | None = None) -> int:
        """Take out of the stream what is archived."""
        assert self.settings.redis_url
        at = None if until is None else Position(until)
        return trim_now(self.settings.redis_url, self.settings.prefix, self.archives, at)

    def positions(self) -> list[str]:
        """Return what stands in the stream."""
        return [position for position, _ in log_of(self.client, self.settings.prefix, "SI")]


@pytest.fixture
def settings_here(settings_for: Callable[..., Settings], server_url: str, tmp_path: Path) -> Settings:
    return settings_for(server_url, DATA_DIR=str(tmp_path), SIDES=SI_ONLY)


@pytest.fixture
def door(settings_here: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    small_pieces(monkeypatch)
    tokens = [enrolled(client, settings_here.prefix, unit=unit) for unit in ("SI-MP-07", "SI-MP-08")]
    with running_gateway(settings_here) as here, Sender(here, tokens[0]) as unit, Sender(here, tokens[1]) as other:
        yield Door(settings_here, client, unit, other)


@pytest.mark.parametrize("anew", [False, True], ids=["the same gateway", "one that was started anew"])
def test_what_was_reported_before_a_trim_is_told_as_before_it(door: Door, *, anew: bool) -> None:
    early = [reported(1), reported(2), reported(11, amends=1, revision=1, persons={"AFG": 2})]
    assert ["recorded"] * 3 == became(door.unit.batch(*early))
    first, second, amendment = door.positions()
    project(door.settings)
    door.archive()
    assert door.trim() == 3
    unit, other = door.unit, door.other
    if anew:
        tokens = [one._client.headers["authorization"].removeprefix("Bearer ") for one in (unit, other)]
        with running_gateway(door.settings) as there, Sender(there, tokens[0]) as a, Sender(there, tokens[1]) as b:
            _assert_known(door, a, b, [first, second, amendment])
    else:
        _assert_known(door, unit, other, [first, second, amendment])


def _assert_known(door: Door, unit: Sender, other: Sender, at: list[str]) -> None:
    for number, report in enumerate([reported(1), reported(2), reported(11, amends=1, revision=1, persons={"AFG": 2})]):
        again = unit.one(report)
        assert (again.status_code, again.json()["position"]) == (200, at[number])
    clash = unit.one(reported(2, persons={"AFG": 9}))
    assert (clash.status_code, clash.json()["position"]) == (409, at[1])
    assert unit.one(reported(11, amends=2, revision=1)).status_code == 409, "the id of an amendment"
    stranger = other.one(reported(21, unit="SI-MP-08", amends=2, revision=1))
    assert (stranger.status_code, stranger.json()["problem"]["code"]) == (422, "not-your-report")
    wrong = unit.one(reported(22, amends=11, revision=1))
    assert (wrong.status_code, wrong.json()["problem"]["code"]) == (422, "names-an-amendment")
    assert door.positions() == []
    assert unit.one(reported(12, amends=1, revision=2)).status_code == 201
    assert unit.one(reported(3)).status_code == 201
    assert len(door.positions()) == 2
    project(door.settings)
    assert unit.one(reported(12, amends=1, revision=2)).status_code == 200


def test_without_the_archive_nobody_is_told_that_a_known_report_is_new(door: Door) -> None:
    assert ["recorded"] * 2 == became(door.unit.batch(reported(1), reported(2)))
    project(door.settings)
    door.archive()
    door.trim()
    door.folder.rename(door.archives / "elsewhere")
    refused = door.unit.one(reported(1))
    assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (503, "unavailable", True)
    assert refused.headers["retry-after"]
    assert door.unit.one(reported(2, persons={"AFG": 9})).status_code == 503
    assert door.unit.one(reported(12, amends=2, revision=1)).status_code == 503
    assert door.unit.one(reported(3)).status_code == 201, "of what is new nothing is archived"
    (door.archives / "elsewhere").rename(door.folder)
    assert door.unit.one(reported(1)).status_code == 200
    assert door.unit.one(reported(12, amends=2, revision=1)).status_code == 201


def test_as_much_taken_out_as_others_appended_hides_nothing(door: Door) -> None:
    """The log is as long as it was, and holds what this gateway has never seen, nor has the projector counted it."""
    assert ["recorded"] * 4 == became(door.unit.batch(*map(reported, range(1, 5))))
    project(door.settings)
    door.archive()
    assert ["recorded"] == became(door.unit.batch(reported(5)))
    assert door.trim(door.positions()[1]) == 2
    feed(door.client, door.settings.prefix, "SI", [given.entry(reported(number)) for number in (6, 7)])
    assert ["duplicate", "duplicate", "conflict"] == became(
        door.unit.batch(reported(6), reported(5), reported(7, persons={"AFG": 9}))
    )
    assert ["duplicate"] * 7 == became(door.unit.batch(*map(reported, range(1, 8))))


@pytest.mark.parametrize("seed", range(3))
def test_trimmed_all_the_time_and_written_by_others_too_every_repetition_is_told(door: Door, seed: int) -> None:
    random = Random(f"trims {seed}")
    numbers: list[int] = []
    for turn in range(12):
        new = [100 * turn + number for number in range(1, random.randrange(2, 6))]
        here = [number for number in new if random.random() < 0.5]
        feed(door.client, door.settings.prefix, "SI", [given.entry(reported(one)) for one in new if one not in here])
        if here:
            assert ["recorded"] * len(here) == became(door.unit.batch(*map(reported, here)))
        numbers += new
        match random.randrange(3):
            case 0:
                project(door.settings)
            case 1:
                project(door.settings)
                door.archive()
                if there := door.positions():
                    counted = door.client.hget(f"{{{door.settings.prefix}:SI}}:g1:checkpoint", "position")
                    assert counted
                    assert there[-1] == counted.decode()
                    door.trim(random.choice(there))
        again = random.sample(numbers, min(4, len(numbers)))
        assert ["duplicate"] * len(again) == became(door.unit.batch(*map(reported, again))), f"turn {turn}"


def test_what_is_archived_before_anybody_counted_it_belongs_to_the_logs_end(door: Door) -> None:
    """No projector runs, and everything is archived: a device asks what the log has of it, to its end."""
    assert ["recorded"] * 3 == became(door.unit.batch(reported(1), reported(2), reported(5)))
    door.archive()
    assert ["recorded"] == became(door.unit.batch(reported(7)))
    standing = door.unit.ask("GET", "/v1/devices/me").json()
    assert (standing["highest"], standing["missing"]) == (7, [[3, 4], [6, 6]])
    assert ["duplicate"] * 2 == became(door.unit.batch(reported(1), reported(7)))
