"""The screen over a log of which a part is only in the archive: it shows what it would have shown without a trim."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from schemas.vocabulary import Position
from services.control_room.room import CHUNK
from services.runtime.settings import Settings
from services.store.segments import DamagedArchiveError
from tests import given
from tests.archives import archive_now, folder_of, small_pieces, trim_now
from tests.gateways import enrolled, recently
from tests.projectors import SI_ONLY, feed, log_of, project
from tests.services.control_room.rooms import Browser, running_room, shows
from tests.waiting import wait_for

SEED = 20240313
# What is of the moment of a look, not of the log.
OF_NOW = ("lag_s", "audit", "looked", "at", "now", "behind_s")


def content(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sides of a snapshot without what is of the moment of a look."""
    return [{name: shown for name, shown in side.items() if name not in OF_NOW} for side in snapshot["sides"]]


@pytest.fixture
def here(
    settings_for: Callable[..., Settings], server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Give settings with an archive folder of their own, and archives of small pieces."""
    small_pieces(monkeypatch, segment=40, group=8, read=16, piece=16)
    return settings_for(server_url, DATA_DIR=str(tmp_path), SIDES=SI_ONLY)


def test_a_past_without_its_archive_names_the_archive(here: Settings, client: redis.Redis, server_url: str) -> None:
    feed(client, here.prefix, "SI", given.seeded_log(SEED, 40)["SI"])
    project(here)
    archive_now(server_url, here.prefix, here.archive_dir)
    trim_now(server_url, here.prefix, here.archive_dir)
    folder = folder_of(here.archive_dir, here.prefix)
    with (
        running_room(here) as served,
        Browser(served.address, enrolled(client, here.prefix, "viewer", "SI")) as viewer,
    ):
        folder.rename(folder.with_name("elsewhere"))
        answer = viewer.get("/api/tallies?at=2024-03-14T12:00:00Z")
        told = answer.json()
        assert (503, "unavailable", False) == (answer.status_code, told["code"], told["retryable"])
        assert "recorded" not in told["title"]
        assert str(folder) in told["detail"]
        page = viewer.get("/?at=2024-03-14&lang=hr")
        assert 503 == page.status_code
        assert "Dnevnik se ne može pročitati u cijelosti." in page.text
        assert str(folder) in page.text


def looked(here: Settings, client: redis.Redis, queries: list[str]) -> list[list[dict[str, Any]]]:
    """Return what a screen that is opened now shows, and what it shows of the past."""
    with (
        running_room(here) as served,
        Browser(served.address, enrolled(client, here.prefix, "viewer", "SI")) as viewer,
    ):
        return [content(viewer.snapshot(query)) for query in queries]


def test_latest_reports_amendments_hours_and_the_past_are_the_same_after_a_trim(
    here: Settings, client: redis.Redis, server_url: str
) -> None:
    entries = given.seeded_log(SEED, 400)["SI"][:150]
    for hour in range(20):  # only of the last day's hours there is a chart
        entries[7 * hour] = given.entry(given.apprehension(id=9_000 + hour, time=recently(hours=hour)))
    feed(client, here.prefix, "SI", entries)
    project(here)
    positions = [position for position, _ in log_of(client, here.prefix, "SI")]
    assert len(positions) < CHUNK, "a look at the latest goes over the border"
    queries = ["", *(f"?at={positions[at]}" for at in (0, 30, 89, 90, 91, 120, 149))]
    before = looked(here, client, queries)
    assert before[0][0]["amendments"] and before[0][0]["latest"] and before[0][0]["hours"]["counts"]
    for border in (90, 130, 149):
        archive_now(server_url, here.prefix, here.archive_dir, Position(positions[border]))
        trim_now(server_url, here.prefix, here.archive_dir)
        assert client.xlen(f"{{{here.prefix}:SI}}:log") == 149 - border
        assert looked(here, client, queries) == before, f"trimmed up to {border}"


@pytest.mark.usefixtures("quick")
def test_a_report_amended_after_its_trim_shows_by_how_much(
    here: Settings, client: redis.Redis, server_url: str
) -> None:
    feed(client, here.prefix, "SI", [given.entry(given.apprehension(id=1, persons={"SYR": 4}))])
    project(here)
    with (
        running_room(here) as served,
        Browser(served.address, enrolled(client, here.prefix, "viewer", "SI")) as viewer,
    ):
        archive_now(server_url, here.prefix, here.archive_dir)
        trim_now(server_url, here.prefix, here.archive_dir)
        feed(
            client, here.prefix, "SI", [given.entry(given.apprehension(id=2, amends=1, revision=1, persons={"SYR": 9}))]
        )
        project(here)
        wait_for(lambda: shows(served, client, here.prefix), what="the amendment on the screen")
        (side,) = viewer.snapshot()["sides"]
        assert [5] == [change for cell, change in side["amendments"][0]["changes"].items() if "|persons|" in cell]


@pytest.mark.usefixtures("quick")
def test_a_server_that_lost_what_its_archive_has_is_no_quiet_border(
    here: Settings, client: redis.Redis, server_url: str
) -> None:
    """Emptied, it would show zeros that nobody doubts; the projector has nothing to stop at."""
    feed(client, here.prefix, "SI", [given.entry(given.apprehension(id=number)) for number in range(1, 20)])
    project(here)
    archive_now(server_url, here.prefix, here.archive_dir)
    with running_room(here) as served:
        wait_for(lambda: served.trouble == "", what="the room to be well")
        client.delete(*client.keys(f"{{{here.prefix}:SI}}:*"))
        wait_for(lambda: served.trouble == "damaged", what="the trouble to be said")
        with Browser(served.address) as anyone:
            ready = anyone.get("/health/ready")
        assert ready.status_code == 503
        assert "19 entries up to" in ready.json()["checks"][0]["detail"]


@pytest.mark.usefixtures("quick")
def test_a_log_that_lost_what_was_counted_is_no_quiet_border(here: Settings, client: redis.Redis) -> None:
    positions = feed(client, here.prefix, "SI", [given.entry(given.apprehension(id=number)) for number in range(1, 20)])
    project(here)
    with running_room(here) as served:
        wait_for(lambda: served.trouble == "", what="the room to be well")
        client.delete(f"{{{here.prefix}:SI}}:log")
        wait_for(lambda: served.trouble == "damaged", what="the trouble to be said")
        assert f"the tallies reach {positions[-1]}" in str(served.side().failure)


def test_a_room_without_the_archive_says_so_in_words_instead_of_showing_a_part(
    here: Settings, client: redis.Redis, server_url: str
) -> None:
    feed(client, here.prefix, "SI", [given.entry(given.apprehension(id=number)) for number in range(1, 20)])
    project(here)
    archive_now(server_url, here.prefix, here.archive_dir)
    trim_now(server_url, here.prefix, here.archive_dir)
    folder = folder_of(here.archive_dir, here.prefix)
    folder.rename(here.data_dir / "elsewhere")
    with pytest.raises(DamagedArchiveError, match=r"was trimmed up to .* FIELDTALLY_DATA_DIR"), running_room(here):
        pass
    (here.data_dir / "elsewhere").rename(folder)
    with running_room(here) as served:
        assert shows(served, client, here.prefix)
