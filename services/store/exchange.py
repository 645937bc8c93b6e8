"""Commands in one go on a connection of one's own: for what is done thousands of times a second, and for WATCH.

redis-py's own pipelines cost several times as much for a handful of commands; hiredis packs and parses here as there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.exceptions import ResponseError

from services.store.connection import Client, translated

Command: TypeAlias = tuple[Any, ...]


class Exchange:
    """A connection that is taken from the client's pool when it is needed, and given up after any error."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url
        self._connection: Any = None  # redis-py's Connection, untyped there
        self._limit_s: float | None = None

    async def send(self, commands: Sequence[Command], *, first: bool = False) -> list[Any]:
        """Send commands in one go and return all answers; an error of a command stands in its place.

        With `first` nothing rests on what was sent before: a connection that the server has closed meanwhile, because
        it was started anew, is given up for another one. Where something was watched that would be wrong.

        Raises:
            UnreachableError: the connection failed. Nothing is known of any of the commands.

        """
        with translated(self._url):
            try:
                if first and self._connection is not None and self._connection._reader.at_eof():  # noqa: SLF001
                    await self.close()
                if self._connection is None:
                    self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
                    # One limit for all of it, below, instead of one for each answer, which costs more than reading it.
                    self._limit_s, self._connection.socket_timeout = self._connection.socket_timeout, None
                connection = self._connection
                answers: list[Any] = []
                async with asyncio.timeout(self._limit_s):
                    await connection.send_packed_command([pack_command(command) for command in commands])
                    for _ in commands:
                        try:
                            answers.append(await connection.read_response())
                        except ResponseError as error:
                            answers.append(error)
            except BaseException:
                await self.close()
                raise
        return answers

    async def close(self) -> None:
        """Give up the connection, and with it whatever it watched."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.socket_timeout = self._limit_s
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)
