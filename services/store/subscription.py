"""Reads a stream through FastStream as it stands there: raw entries in batches, plain XREAD, no consumer group.

FastStream's reader moves its own position before the handler runs and goes on after an exception: whoever could not
take a batch sets `last_id` back to where he is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import FAKE_CONSUMER, RedisBatchStreamMessage

from schemas.vocabulary import Position
from services.store.connection import TIMEOUT_S, Announce, patient_retry
from services.store.contract import Entry

POLL_MS: Final = 1_000  # below the client's socket timeout, or an idle read would look like a dead server


class _Kept(list[asyncio.Task[Any]]):
    """The tasks of a subscriber, which are still known when it has been stopped."""

    def clear(self) -> None:
        """Keep them."""


class Reader(Protocol):
    """What is needed of a subscriber: the position after which it reads next."""

    last_id: str


def reading_broker(url: str, pause_s: Callable[[int], float], announce: Announce) -> RedisBroker:
    """Return a broker that never gives up reading; how long it pauses after failures is said by `pause_s`."""
    return RedisBroker(
        f"{url}{'&' if '?' in url else '?'}protocol=2",
        socket_timeout=TIMEOUT_S,
        retry=patient_retry(url, pause_s, announce),
        logger=cast("Any", None),  # typed as required, documented as optional
        apply_types=False,
    )


def subscribe(broker: RedisBroker, key: str, count: int, deliver: Callable[[list[Entry]], Awaitable[None]]) -> Reader:
    """Have up to `count` entries of a stream delivered at once; from its beginning, unless `last_id` is set."""
    subscriber: Any = broker.subscriber(
        stream=StreamSub(key, batch=True, max_records=count, polling_interval=POLL_MS, last_id="0"),
        parser=_raw_batch,
        decoder=_undecoded,
    )

    # Exactly one parameter: with a second one FastStream unpacks the batch.
    async def handle(batch: RedisBatchStreamMessage) -> None:
        ids = batch.raw_message["message_ids"]
        fields = cast("list[dict[bytes, bytes]]", batch.body)
        await deliver([Entry(Position(entry_id.decode()), entry) for entry_id, entry in zip(ids, fields, strict=True)])

    subscriber(handle)
    subscriber.tasks = _Kept()
    reader: Reader = subscriber
    return reader


def reading_tasks(broker: RedisBroker) -> list[asyncio.Task[Any]]:
    """Return what reads, or has read, for a broker: to be ended with `ending.end` when the broker has been stopped.

    FastStream cancels each of them once, and a cancellation that is lost leaves a reader that tries for ever.
    """
    return [task for subscriber in broker.subscribers for task in cast("Any", subscriber).tasks]


async def _raw_batch(message: Any) -> RedisBatchStreamMessage:
    """Hand the entries on as they stand in the stream: FastStream's own parser would unwrap a field called `data`."""
    return RedisBatchStreamMessage(
        raw_message=message,
        body=message["data"],
        message_id=message["message_ids"][0].decode(),
        correlation_id=message["message_ids"][0].decode(),
        consumer=FAKE_CONSUMER,
        group=None,
    )


async def _undecoded(message: RedisBatchStreamMessage) -> RedisBatchStreamMessage:
    return message
