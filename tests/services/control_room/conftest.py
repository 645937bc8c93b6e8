"""What the tests of the control room share: a room that looks and beats often, and somebody who looks at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from services.control_room import feed, routes
from services.runtime.settings import Settings
from tests.gateways import enrolled
from tests.services.control_room.rooms import Browser, Served, running_room


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a room look at its server and send heartbeats often: the rules are the same, the waiting is not."""
    monkeypatch.setattr(feed, "LOOK_S", 0.2)
    monkeypatch.setattr(feed, "RETRY_S", 0.02)
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.1)


@pytest.fixture
def served(quick: None, settings: Settings) -> Iterator[Served]:  # noqa: ARG001  # it is asked for first
    """Serve a room of the two sides on the shared server."""
    with running_room(settings) as served:
        yield served


@pytest.fixture
def auditor(served: Served, client: redis.Redis, settings: Settings) -> Iterator[Browser]:
    """Give somebody who sees both sides."""
    with Browser(served.address, enrolled(client, settings.prefix, "auditor", "SI,HR", unit="wall")) as browser:
        yield browser


@pytest.fixture
def viewer(served: Served, client: redis.Redis, settings: Settings) -> Iterator[Browser]:
    """Give somebody who sees SI alone."""
    with Browser(served.address, enrolled(client, settings.prefix, "viewer", "SI")) as browser:
        yield browser
