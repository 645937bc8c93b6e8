"""What many tests share: a real Valkey per worker, key names of one's own on it, and settings that lead there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import redis

from services.runtime.embedded import embedded_server
from services.runtime.settings import Settings, read_settings
from tests import given  # noqa: F401  # it loads the Hypothesis profile
from tests.servers import OwnServer, plain_client

_prefixes = (f"t{number}" for number in count())


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a Valkey that all tests of this worker use; see `prefix`."""
    with embedded_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give this worker's data folder, also to the commands it starts: archives never come from a home folder."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        yield folder / "fieldtally"


@pytest.fixture
def prefix() -> str:
    """Give a prefix of key names that no other test of this server has: so nothing needs to be emptied."""
    return next(_prefixes)


@pytest.fixture
def client(server_url: str) -> Iterator[redis.Redis]:
    """Give a plain client of the shared server, to look behind the product's back."""
    with plain_client(server_url) as client:
        yield client


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[OwnServer]:
    """Give a server that belongs to this test alone, and may be broken."""
    with ExitStack() as users:
        yield OwnServer(tmp_path / "server", users)


@pytest.fixture
def settings_for(prefix: str, data_folder: Path) -> Callable[..., Settings]:
    """Build settings for this test's prefix from a server's address and further variables, such as `SIDES=…`."""

    def build(url: str, **environ: str) -> Settings:
        named = {"REDIS_URL": url, "PREFIX": prefix, "DATA_DIR": str(data_folder)} | environ
        return read_settings({f"FIELDTALLY_{name}": text for name, text in named.items()})

    return build


@pytest.fixture
def settings(server_url: str, settings_for: Callable[..., Settings]) -> Settings:
    """Give settings for this test's prefix on the shared server, with the two sides of the default."""
    return settings_for(server_url)
