"""What the server or redis-py says when there are too many connections is not taken for a server that is away."""

from __future__ import annotations

import pytest
import redis
import redis.asyncio

from services.runtime.errors import UnreachableError
from services.store.connection import in_words, translated
from tests.asynchronous import asynchronous


@asynchronous
async def test_a_pool_that_has_given_out_all_its_connections_is_no_server_that_is_away(server_url: str) -> None:
    client = redis.asyncio.Redis.from_url(server_url, max_connections=1)
    held = await client.connection_pool.get_connection()
    try:
        with (
            pytest.raises(UnreachableError, match=r"too many connections .* are in use here: wait"),
            translated(server_url),
        ):
            await client.ping()
    finally:
        await client.connection_pool.release(held)
        await client.aclose()


@pytest.mark.parametrize("around", [None, redis.ConnectionError("cannot connect")], ids=["as it is", "wrapped"])
def test_a_server_that_takes_no_more_clients_is_no_server_that_is_away(around: Exception | None) -> None:
    """It says so and hangs up; a client that is still writing then sees no more than a broken connection."""
    error: Exception = redis.ConnectionError("max number of clients reached")
    if around:
        around.__cause__, error = error, around
    assert "too many clients (maxclients)" in str(in_words(error, "redis://there"))
