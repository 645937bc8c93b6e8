"""Commands in one go on a connection of one's own: what becomes of it when the server closes it meanwhile."""

from __future__ import annotations

import asyncio

import pytest
import redis

from services.runtime.errors import UnreachableError
from services.store.connection import connect
from services.store.exchange import Exchange
from tests.asynchronous import asynchronous
from tests.waiting import wait_for


@pytest.mark.parametrize("first", [True, False])
@asynchronous
async def test_a_connection_that_the_server_has_closed_is_given_up_only_where_nothing_rests_on_it(
    server_url: str, *, first: bool
) -> None:
    """A gateway's first report after the server was started anew must not fail; an EXEC without its WATCH must."""
    client = connect(server_url)
    exchange = Exchange(client, server_url)
    try:
        (own,) = await exchange.send([("CLIENT", "ID")])
        with redis.Redis.from_url(server_url) as other:
            assert other.client_kill_filter(_id=own)
        ended = exchange._connection._reader.at_eof
        await asyncio.to_thread(wait_for, ended, what="the end of the connection")
        if first:
            (another,) = await exchange.send([("CLIENT", "ID")], first=True)
            assert another != own
        else:
            with pytest.raises(UnreachableError):
                await exchange.send([("CLIENT", "ID")])
            assert await exchange.send([("PING",)]) == [b"PONG"]
    finally:
        await exchange.close()
        await client.aclose()
