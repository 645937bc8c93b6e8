"""What holds of the store on Redis alone: the keys that others may read, and what a server's trouble leaves behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
import redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas.events import (
    Apprehension,
    ApprehensionData,
    CitizenshipCount,
    OperationOpenedData,
    SectionPlan,
)
from schemas.tallies import Checkpoint, Counters, DeviceNumbers, Opening, Operation, Parked
from schemas.vocabulary import START, Position, Side, order
from services.runtime.errors import DamagedLogError, FieldtallyError, UnreachableError, UnsoundTalliesError
from services.store.connection import BusyServerError, check_server, connect, in_words, patient_retry, translated
from services.store.contract import LogExtent, Stored, StoredAt
from services.store.index_entry import IndexEntry, unpack, unpack_amendment
from services.store.keys import PartitionKeys
from services.store.log import PartlyAppendedError, RedisLog
from services.store.tally_store import CHANGES_KEPT, RedisTallyStore
from services.tally.cells import Cell
from services.tally.fold import Amendment, Changes, Version
from tests.asynchronous import asynchronous
from tests.faults import Action, Command, FaultProxy
from tests.servers import OwnServer

SI = Side("SI")
PERSONS: Cell = (SI, "SI-HR-2024-03", "novo-mesto", "2024-03-14", "persons", "SYR")
INCIDENTS: Cell = (SI, "SI-HR-2024-03", "novo-mesto", "2024-03-14", "apprehensions", "")
PERSONS_TEXT = b"SI|SI-HR-2024-03|novo-mesto|2024-03-14|persons|SYR"
INCIDENTS_TEXT = b"SI|SI-HR-2024-03|novo-mesto|2024-03-14|apprehensions|"
KEY = UUID(int=1)
NOTHING_HELD = StoredAt("g1", Checkpoint(fold_version=1))
REPORT = Apprehension(
    specversion="1.0",
    id=KEY,
    source="/SI/SI-MP-07/9f3c2a",
    reportno=1,
    side=SI,
    time=datetime(2024, 3, 14, 3, 12, tzinfo=UTC),
    data=ApprehensionData("novo-mesto", (CitizenshipCount("SYR", 4),)),
)


@asynccontextmanager
async def partition(url: str, prefix: str) -> AsyncIterator[tuple[RedisLog, RedisTallyStore]]:
    client = connect(url)
    store = RedisTallyStore(client, url, PartitionKeys(prefix, SI))
    try:
        yield RedisLog(client, url, PartitionKeys(prefix, SI)), store
    finally:
        await store.close()
        await client.aclose()


def changes_at(position: Position, entries: int, cells: dict[Cell, int], **other: Any) -> Changes:
    rest: dict[str, Any] = {"index": {}, "devices": {}, "operations": {}, "parked": {}} | other
    return Changes(checkpoint=Checkpoint(position, entries, 1, Counters(applied=entries)), cells=cells, **rest)


async def record_one(log: RedisLog, store: RedisTallyStore, **other: Any) -> Changes:
    """Record a first turn over one entry."""
    [position] = await log.append([b"one"])
    changes = changes_at(position, 1, {PERSONS: 4, INCIDENTS: 1}, **other)
    assert await store.open_turn(NOTHING_HELD, position, [KEY.bytes]) == [None]
    assert await store.record(changes)
    return changes


def everything(client: redis.Redis, prefix: str) -> dict[bytes, bytes | None]:
    """Return every key of a prefix with its value, log apart."""
    return {
        key: client.dump(key)
        for key in client.scan_iter(match=f"{{{prefix}:*", count=1000)
        if not key.endswith(b":log")
    }


# The keys, as other programs may read them (DESIGN section 4)


@asynchronous
async def test_the_keys_are_named_as_designed(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, store):
        [first] = await log.append([b"zero"])
        changes = changes_at(
            first,
            1,
            {PERSONS: 4},
            index={KEY.bytes: Version(REPORT, first, original_missing=False)},
            devices={"SI-MP-07/9f3c2a": DeviceNumbers(1)},
            operations={"SI-HR-2024-03": Operation()},
            parked={first: Parked("malformed", "", "")},
            amendments={KEY.bytes: Amendment(first)},
        )
        assert await store.open_turn(NOTHING_HELD, first, [KEY.bytes]) is not None
        assert await store.record(changes)
    kinds = {key.decode(): client.type(key).decode() for key in client.scan_iter(match=f"*{prefix}:*", count=1000)}
    assert kinds == {
        f"{{{prefix}:SI}}:log": "stream",
        f"{{{prefix}:SI}}:live": "string",
        f"{{{prefix}:SI}}:changes": "stream",
        f"{{{prefix}:SI}}:g1:checkpoint": "hash",
        f"{{{prefix}:SI}}:g1:tallies": "hash",
        f"{{{prefix}:SI}}:g1:index": "hash",
        f"{{{prefix}:SI}}:g1:amendments": "hash",
        f"{{{prefix}:SI}}:g1:devices": "hash",
        f"{{{prefix}:SI}}:g1:operations": "hash",
        f"{{{prefix}:SI}}:g1:parked": "hash",
    }
    assert client.get(f"{{{prefix}:SI}}:live") == b"g1"


@asynchronous
async def test_a_log_entry_has_the_fields_event_and_by(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, _):
        [first] = await log.append([b"one"], by="SI-MP-07/9f3c2a")
        [second] = await log.append([b"two"])
    assert client.xrange(f"{{{prefix}:SI}}:log") == [
        (first.encode(), {b"event": b"one", b"by": b"SI-MP-07/9f3c2a"}),
        (second.encode(), {b"event": b"two"}),
    ]


@asynchronous
async def test_the_checkpoint_is_a_hash_of_position_zone_and_numbers(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    async with partition(server_url, prefix) as (log, store):
        [position] = await log.append([b"one"])
        changes = Changes(Checkpoint(position, 1, 1, Counters(*range(10, 20)), "Europe/Ljubljana"), {}, {}, {}, {}, {})
        assert await store.open_turn(NOTHING_HELD, position, []) is not None
        assert await store.record(changes)
    assert client.hgetall(f"{{{prefix}:SI}}:g1:checkpoint") == {
        b"zone": b"Europe/Ljubljana",
        b"position": position.encode(),
        b"entries": b"1",
        b"fold_version": b"1",
        b"applied": b"10",
        b"replaced": b"11",
        b"duplicate": b"12",
        b"superseded": b"13",
        b"conflict": b"14",
        b"malformed": b"15",
        b"unknown_type": b"16",
        b"wrong_side": b"17",
        b"number_reused": b"18",
        b"original_missing": b"19",
    }


@asynchronous
async def test_the_tallies_are_a_hash_from_cell_to_absolute_count(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    async with partition(server_url, prefix) as (log, store):
        one = await record_one(log, store)
        [second] = await log.append([b"two"])
        two = changes_at(second, 2, {PERSONS: 9, INCIDENTS: 0})
        assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
        assert await store.record(two)
    assert client.hgetall(f"{{{prefix}:SI}}:g1:tallies") == {PERSONS_TEXT: b"9"}


@asynchronous
async def test_an_amendment_that_comes_again_stands_where_it_first_stood(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    async with partition(server_url, prefix) as (log, store):
        changes = await record_one(log, store, amendments={KEY.bytes: Amendment(Position("1-0"))})
        [second] = await log.append([b"two"])
        again = changes_at(second, 2, {}, amendments={KEY.bytes: Amendment(second)})
        assert await store.open_turn(StoredAt("g1", changes.checkpoint), second, []) is not None
        assert await store.record(again)
    assert {KEY.bytes: b"\0\0\0\0\0\1\0"} == client.hgetall(f"{{{prefix}:SI}}:g1:amendments")


@asynchronous
async def test_index_devices_operations_and_parked_are_hashes(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    plan = OperationOpenedData("Joint", date(2024, 3, 13), date(2024, 3, 15), (SectionPlan("ig", "Ig", "joint"),))
    operation = Operation(plan, None, {KEY.hex: Opening(datetime(2024, 3, 1, tzinfo=UTC), plan)})
    async with partition(server_url, prefix) as (log, store):
        [first] = await log.append([b"one"])
        changes = changes_at(
            first,
            1,
            {},
            index={KEY.bytes: Version(REPORT, first, original_missing=False)},
            devices={"SI-MP-07/9f3c2a": DeviceNumbers(118, [(103, 104)], first)},
            operations={"SI-HR-2024-03": operation},
            parked={first: Parked("conflict", "in words", "00ff")},
            amendments={KEY.bytes: Amendment(first)},
        )
        assert await store.open_turn(NOTHING_HELD, first, [KEY.bytes]) is not None
        assert await store.record(changes)

    def rows(name: str) -> dict[bytes, bytes]:
        return client.hgetall(f"{{{prefix}:SI}}:g1:{name}")

    assert {key: unpack(packed) for key, packed in rows("index").items()} == {
        KEY.bytes: IndexEntry(first, 0, original_missing=False)
    }
    assert {name: unpack_amendment(at) for name, at in rows("amendments").items()} == {KEY.bytes: Amendment(first)}
    assert {name: json.loads(row) for name, row in rows("devices").items()} == {
        b"SI-MP-07/9f3c2a": {"highest": 118, "missing": [[103, 104]], "last_position": first, "reused": 0}
    }
    assert {name: json.loads(row) for name, row in rows("parked").items()} == {
        first.encode(): {"reason": "conflict", "detail": "in words", "digest": "00ff"}
    }
    written = json.loads(rows("operations")[b"SI-HR-2024-03"])
    sections = [{"section": "ig", "area": "Ig", "coverage": "joint"}]
    assert written["plan"] == {"name": "Joint", "starts": "2024-03-13", "ends": "2024-03-15", "sections": sections}
    assert list(written["openings"]) == [KEY.hex]


@asynchronous
async def test_a_change_has_the_position_it_leads_to_the_generation_and_absolute_counts(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    async with partition(server_url, prefix) as (log, store):
        one = await record_one(log, store)
        second, third = await log.append([b"two", b"three"])
        two = changes_at(third, 3, {PERSONS: 9, INCIDENTS: 0})
        assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
        assert await store.record(two)
    feed = client.xrange(f"{{{prefix}:SI}}:changes")
    assert ["0-0", one.checkpoint.position] == [fields[b"after"].decode() for _, fields in feed]
    assert [(entry_id.decode(), fields[b"generation"], json.loads(fields[b"cells"])) for entry_id, fields in feed] == [
        (one.checkpoint.position, b"g1", {PERSONS_TEXT.decode(): 4, INCIDENTS_TEXT.decode(): 1}),
        (third, b"g1", {PERSONS_TEXT.decode(): 9, INCIDENTS_TEXT.decode(): 0}),
    ]


@asynchronous
async def test_nothing_is_said_about_a_length_when_the_log_is_appended_to(server_url: str, prefix: str) -> None:
    """A cap of any size would one day take away what nobody has archived."""
    with FaultProxy(server_url) as proxy:
        appended: list[tuple[bytes, ...]] = []

        def rule(command: Command) -> Action:
            if command.name == "XADD":
                appended.append(command.args)
            return Action.PASS

        proxy.on_command = rule
        async with partition(proxy.url, prefix) as (log, _):
            await log.append([b"one", b"two"], by="SI-DESK")
            await log.append([b"three"])
    key = f"{{{prefix}:SI}}:log".encode()
    by = (b"by", b"SI-DESK")
    assert [
        (key, b"*", b"event", b"one", *by), (key, b"*", b"event", b"two", *by), (key, b"*", b"event", b"three")
    ] == appended  # fmt: skip


@asynchronous
async def test_the_change_feed_is_capped_and_the_log_is_not(server_url: str, prefix: str, client: redis.Redis) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(1, CHANGES_KEPT + 501):
            pipe.xadd(f"{{{prefix}:SI}}:changes", {"generation": "g1", "cells": "{}"}, id=f"{number}-0")
            pipe.xadd(f"{{{prefix}:SI}}:log", {"event": "x"})
        pipe.execute()
    async with partition(server_url, prefix) as (log, store):
        [first, *_] = await log.read_after(START, 1)
        last = (await log.extent()).last
        assert await store.open_turn(NOTHING_HELD, first.position, []) is not None
        assert await store.record(changes_at(last, CHANGES_KEPT + 500, {}))
        assert await log.extent() == LogExtent(last=last, length=CHANGES_KEPT + 500, appended=CHANGES_KEPT + 500)
    kept = client.xlen(f"{{{prefix}:SI}}:changes")
    assert CHANGES_KEPT <= kept <= CHANGES_KEPT + 200


@asynchronous
async def test_all_keys_of_a_partition_lie_in_one_slot(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, store):
        await record_one(log, store)
    keys = list(client.scan_iter(match=f"*{prefix}:*", count=1000))
    assert len(keys) >= 5
    assert {key[: key.index(b"}") + 1] for key in keys} == {f"{{{prefix}:SI}}".encode()}


@asynchronous
async def test_the_live_key_decides_which_generation_is_read(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, store):
        await record_one(log, store, parked={Position("1-0"): Parked("malformed", "", "")})
        client.hset(f"{{{prefix}:SI}}:g2:tallies", mapping={INCIDENTS_TEXT: 7})
        client.hset(f"{{{prefix}:SI}}:g2:checkpoint", mapping={"position": "5-1", "entries": 3, "fold_version": 1})
        client.set(f"{{{prefix}:SI}}:live", "g2")
        assert await store.load() == Stored("g2", Checkpoint(Position("5-1"), 3, 1), {INCIDENTS: 7}, {}, {})
        assert await store.parked() == {}


@asynchronous
async def test_recording_is_refused_when_the_live_generation_was_swapped_meanwhile(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    async with partition(server_url, prefix) as (log, store):
        one = await record_one(log, store)
        [second] = await log.append([b"two"])
        assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
        client.set(f"{{{prefix}:SI}}:live", "g2")
        before = everything(client, prefix)
        assert await store.record(changes_at(second, 2, {PERSONS: 5})) is False
    assert everything(client, prefix) == before


@asynchronous
async def test_a_flush_between_opening_and_recording_refuses_the_recording(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    async with partition(server_url, prefix) as (log, store):
        one = await record_one(log, store)
        [second] = await log.append([b"two"])
        assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
        client.delete(*everything(client, prefix), f"{{{prefix}:SI}}:log")
        assert await store.record(changes_at(second, 2, {PERSONS: 5})) is False
    assert everything(client, prefix) == {}


# The change feed


@asynchronous
async def test_a_change_feed_ahead_of_the_log_is_begun_anew(server_url: str, prefix: str, client: redis.Redis) -> None:
    """A log set back under a feed that was not: the tallies come first, and the feed's readers take a snapshot."""
    async with partition(server_url, prefix) as (log, store):
        client.xadd(f"{{{prefix}:SI}}:changes", {"generation": "g1", "cells": "{}"}, id="99999999999999-0")
        changes = await record_one(log, store)
        assert (await store.load()).tallies == {PERSONS: 4, INCIDENTS: 1}
    feed = client.xrange(f"{{{prefix}:SI}}:changes")
    assert [entry_id.decode() for entry_id, _ in feed] == [changes.checkpoint.position]


@asynchronous
async def test_a_change_feed_behind_the_log_is_gone_on_with(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, store):
        client.xadd(f"{{{prefix}:SI}}:changes", {"generation": "g1", "cells": "{}"}, id="1-0")
        changes = await record_one(log, store)
    feed = client.xrange(f"{{{prefix}:SI}}:changes")
    assert [entry_id.decode() for entry_id, _ in feed] == ["1-0", changes.checkpoint.position]


# Errors


@asynchronous
@pytest.mark.parametrize("name", ["tallies", "devices", "index"])
async def test_an_error_inside_exec_is_damage_that_names_the_key(
    server_url: str, prefix: str, client: redis.Redis, name: str
) -> None:
    """Redis does not roll back: part of the turn is written, and only a rebuild makes the generation sound again."""
    key = f"{{{prefix}:SI}}:g1:{name}"
    async with partition(server_url, prefix) as (log, store):
        [first] = await log.append([b"one"])
        changes = changes_at(
            first,
            1,
            {PERSONS: 4},
            index={KEY.bytes: Version(REPORT, first, original_missing=False)},
            devices={"u/a": DeviceNumbers(1)},
        )
        assert await store.open_turn(NOTHING_HELD, first, []) is not None
        client.set(key, "not a hash")
        with pytest.raises(DamagedLogError) as raised:
            await store.record(changes)
    assert key in str(raised.value)
    assert "WRONGTYPE" in str(raised.value)
    assert "rebuild" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@asynchronous
@pytest.mark.parametrize("name", ["checkpoint", "index"])
async def test_a_key_of_another_kind_is_damage_already_at_opening(
    server_url: str, prefix: str, client: redis.Redis, name: str
) -> None:
    async with partition(server_url, prefix) as (log, store):
        [first] = await log.append([b"one"])
        client.set(f"{{{prefix}:SI}}:g1:{name}", "not a hash")
        with pytest.raises(UnsoundTalliesError, match=r"\(g1\) is no hash.*`fieldtally rebuild --swap`"):
            await store.open_turn(NOTHING_HELD, first, [KEY.bytes])
        client.delete(f"{{{prefix}:SI}}:g1:{name}")
        assert await store.open_turn(NOTHING_HELD, first, [KEY.bytes]) == [None]  # on a new connection


@asynchronous
async def test_out_of_memory_leaves_nothing_applied(fresh_server: OwnServer, prefix: str) -> None:
    async with partition(fresh_server.url, prefix) as (log, store):
        one = await record_one(log, store)
        [second] = await log.append([b"two"])
        with fresh_server.client() as client:
            before = everything(client, prefix)
            assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
            client.config_set("maxmemory", 1)
            with pytest.raises(BusyServerError, match="out of memory"):
                await store.record(changes_at(second, 2, {PERSONS: 9, INCIDENTS: 0}))
            assert everything(client, prefix) == before
            with pytest.raises(PartlyAppendedError, match="out of memory") as raised:
                await log.append([b"three", b"four"])
            assert raised.value.positions == [None, None]
            client.config_set("maxmemory", 0)
            # And the next turn goes through.
            assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
            assert await store.record(changes_at(second, 2, {PERSONS: 9, INCIDENTS: 0}))
            assert client.hgetall(f"{{{prefix}:SI}}:g1:tallies") == {PERSONS_TEXT: b"9"}


@asynchronous
async def test_a_read_only_replica_leaves_nothing_applied(fresh_server: OwnServer, prefix: str) -> None:
    async with partition(fresh_server.url, prefix) as (log, store):
        one = await record_one(log, store)
        [second] = await log.append([b"two"])
        with fresh_server.client() as client:
            before = everything(client, prefix)
            assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
            client.replicaof("127.0.0.1", "1")
            with pytest.raises(BusyServerError, match="read-only replica"):
                await store.record(changes_at(second, 2, {PERSONS: 9}))
            assert everything(client, prefix) == before
            client.replicaof("NO", "ONE")
            assert await store.open_turn(StoredAt("g1", one.checkpoint), second, []) is not None
            assert await store.record(changes_at(second, 2, {PERSONS: 9}))


@asynchronous
async def test_a_lost_answer_to_exec_is_an_error_and_the_turn_stands(server_url: str, prefix: str) -> None:
    """The caller cannot know, so it loads again and finds what was recorded."""
    with FaultProxy(server_url) as proxy:
        async with partition(proxy.url, prefix) as (log, store):
            [first] = await log.append([b"one"])
            assert await store.open_turn(NOTHING_HELD, first, []) is not None
            proxy.on_command = lambda command: Action.CUT_AFTER if command.name == "EXEC" else Action.PASS
            changes = changes_at(first, 1, {PERSONS: 4})
            with pytest.raises(UnreachableError):
                await store.record(changes)
            proxy.on_command = None
            assert (await store.load()).checkpoint == changes.checkpoint


@asynchronous
@pytest.mark.parametrize("name", ["MULTI", "HSET", "XADD", "EXEC"])
async def test_a_connection_lost_before_exec_leaves_nothing_applied(
    server_url: str, prefix: str, client: redis.Redis, name: str
) -> None:
    with FaultProxy(server_url) as proxy:
        async with partition(proxy.url, prefix) as (log, store):
            [first] = await log.append([b"one"])
            assert await store.open_turn(NOTHING_HELD, first, []) is not None
            proxy.on_command = lambda command: Action.CUT_BEFORE if command.name == name else Action.PASS
            with pytest.raises(UnreachableError):
                await store.record(changes_at(first, 1, {PERSONS: 4}))
    assert everything(client, prefix) == {}


@asynchronous
async def test_of_a_batch_cut_off_midway_the_caller_is_told_that_it_failed(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    """Nothing is sent again by itself: an XADD that is repeated appends twice."""
    with FaultProxy(server_url) as proxy:
        async with partition(proxy.url, prefix) as (log, _):
            added = 0

            def cut_third(command: Any) -> Action:
                nonlocal added
                if command.name != "XADD":
                    return Action.PASS
                added += 1
                return Action.CUT_AFTER if added == 3 else Action.PASS

            proxy.on_command = cut_third
            with pytest.raises(UnreachableError):
                await log.append([b"one", b"two", b"three", b"four"])
    assert [fields[b"event"] for _, fields in client.xrange(f"{{{prefix}:SI}}:log")] == [b"one", b"two", b"three"]


ERRORS = [
    (AuthenticationError("WRONGPASS invalid username-password pair: secret"), UnreachableError),
    (NoPermissionError("this user has no permissions to run the 'xadd' command"), UnreachableError),
    (BusyLoadingError("Redis is loading the dataset in memory"), BusyServerError),
    (ReadOnlyError("You can't write against a read only replica."), BusyServerError),
    (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), BusyServerError),
    (RedisConnectionError("Error 111 connecting to redis://user:secret@host:1. Connection refused."), UnreachableError),
    (RedisTimeoutError("Timeout reading from host:1"), UnreachableError),
    (TimeoutError(), UnreachableError),
    (ConnectionResetError(104, "Connection reset by peer"), UnreachableError),
    (ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), BusyServerError),
    (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), DamagedLogError),
    (ExecAbortError("EXECABORT Transaction discarded because of previous errors."), BusyServerError),
    (ResponseError("EXECABORT Transaction discarded because of previous errors."), BusyServerError),
    (ResponseError("ERR something new\r\nover two lines"), UnreachableError),
    (RedisError(""), UnreachableError),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("url", ["redis://user:secret@db.example:6379/0", "rediss://:secret@db.example:6379/0"])
def test_an_error_is_one_line_of_words_without_the_password(
    url: str, error: BaseException, kind: type[FieldtallyError]
) -> None:
    with pytest.raises(kind) as raised, translated(url):
        raise error
    assert type(raised.value) is kind
    assert len(str(raised.value).splitlines()) == 1
    assert "db.example" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is error


def test_an_error_in_our_words_stays_as_it_is() -> None:
    said = DamagedLogError("as it is")
    with pytest.raises(DamagedLogError) as raised, translated("redis://host"):
        raise said
    assert raised.value is said


def test_any_error_has_words() -> None:
    assert "ResponseError" in str(in_words(ResponseError("ERR unknown command"), "redis://host"))


@asynchronous
async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    url = "redis://user:secret@127.0.0.1:1/0"
    client = connect(url)
    with pytest.raises(UnreachableError, match=r"redis://user:\*\*\*@127\.0\.0\.1:1/0") as raised:
        await check_server(client, url)
    await client.aclose()
    assert "secret" not in str(raised.value)
    assert raised.value.exit_code == 3


@asynchronous
async def test_a_wrong_password_is_refused_in_words(fresh_server: OwnServer) -> None:
    with fresh_server.client() as client:
        client.config_set("requirepass", "right")
    url = fresh_server.url.replace("unix://", "unix://:secret@")
    client_with_wrong_password = connect(url)
    with pytest.raises(UnreachableError, match="refuses this user") as raised:
        await check_server(client_with_wrong_password, url)
    await client_with_wrong_password.aclose()
    assert "secret" not in str(raised.value)


@asynchronous
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_is_refused(fresh_server: OwnServer, policy: str) -> None:
    with fresh_server.client() as plain:
        plain.config_set("maxmemory-policy", policy)
    client = connect(fresh_server.url)
    with pytest.raises(UnreachableError, match=f"maxmemory-policy {policy}.*set `maxmemory-policy noeviction`"):
        await check_server(client, fresh_server.url)
    await client.aclose()


@asynchronous
async def test_the_embedded_server_is_accepted(server_url: str) -> None:
    client = connect(server_url)
    assert (await check_server(client, server_url))["maxmemory_policy"] == "noeviction"
    await client.aclose()


@asynchronous
async def test_a_patient_reader_that_is_cancelled_ends_even_if_the_cancellation_was_swallowed() -> None:
    """As redis-py does when it comes while it connects: the server is away, and nothing else would end the reader."""
    said: list[float] = []
    retry = patient_retry("redis://host", lambda failures: failures / 1_000, lambda _, pause_s: said.append(pause_s))

    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)
        raise RedisConnectionError

    async def no_clean_up(_: Exception) -> None:
        return

    reader = asyncio.create_task(retry.call_with_retry(swallow, no_clean_up))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader], timeout=10)
    assert reader.cancelled()
    assert said == []


@asynchronous
async def test_a_patient_reader_says_each_pause_and_goes_on() -> None:
    said: list[tuple[str, float]] = []
    retry = patient_retry("redis://:secret@host", lambda failures: failures / 1_000, lambda *line: said.append(line))
    errors: list[Exception] = [RedisConnectionError(), RedisTimeoutError(), ReadOnlyError(), ResponseError("UNBLOCKED")]

    async def fail_at_first() -> str:
        if errors:
            raise errors.pop(0)
        return "read"

    async def no_clean_up(_: Exception) -> None:
        return

    assert await retry.call_with_retry(fail_at_first, no_clean_up) == "read"
    assert [pause_s for _, pause_s in said] == [0.001, 0.002, 0.003, 0.004]
    assert {reason for reason, _ in said} == {"cannot read from redis://:***@host"}


# What a log says of itself


@asynchronous
async def test_the_extent_tells_what_was_lost(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, _):
        positions = await log.append([b"one", b"two", b"three", b"four"])
        client.xdel(f"{{{prefix}:SI}}:log", positions[1])
        assert (await log.extent()).lost == 1
        client.xtrim(f"{{{prefix}:SI}}:log", maxlen=1, approximate=False)
        extent = await log.extent()
    assert extent == LogExtent(last=positions[-1], length=1, appended=4, newest_deleted=positions[1])
    assert extent.lost == 3


@asynchronous
async def test_an_emptied_log_keeps_its_last_position(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, _):
        positions = await log.append([b"one", b"two"])
        client.xtrim(f"{{{prefix}:SI}}:log", maxlen=0, approximate=False)
        assert await log.extent() == LogExtent(last=positions[-1], length=0, appended=2)
        assert await log.read_at(positions) == [None, None]


@asynchronous
async def test_reading_may_wait_for_the_first_entry(server_url: str, prefix: str, client: redis.Redis) -> None:
    async with partition(server_url, prefix) as (log, _):
        [first] = await log.append([b"one"])
        assert await log.read_after(first, 10, block_ms=1) == []
        [second] = await log.append([b"two"])
        assert [entry.position for entry in await log.read_after(first, 10, block_ms=10_000)] == [second]
    assert order(first) < order(second)
    assert client.xlen(f"{{{prefix}:SI}}:log") == 2


@pytest.mark.parametrize(
    ("hash_name", "field", "value"),
    [
        ("tallies", "SI|koper", "1"),
        ("tallies", PERSONS_TEXT, "many"),
        ("devices", "SI-MP-07/9f3c2a", "{}}"),
        ("operations", "SI-HR-2024-03", "open"),
    ],
)
@asynchronous
async def test_derived_state_that_nobody_here_wrote_is_damage(
    server_url: str, prefix: str, hash_name: str, field: bytes | str, value: str
) -> None:
    generation = PartitionKeys(prefix, SI).generation("g1")
    async with partition(server_url, prefix) as (_, store):
        with redis.Redis.from_url(server_url) as client:
            client.hset(getattr(generation, hash_name), field, value)
        with pytest.raises(DamagedLogError, match=r"\(g1\).*`fieldtally rebuild --swap`"):
            await store.load()
