"""Connections to the server, and its errors in the words of Fieldtally."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import AbstractBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.runtime.errors import DamagedLogError, FieldtallyError, UnreachableError
from services.runtime.settings import hide_password

Client: TypeAlias = "redis.asyncio.Redis"
Announce: TypeAlias = Callable[[str, float], None]

TIMEOUT_S: Final = 5.0
OLDEST_SERVER: Final = (7, 0)  # XINFO STREAM counts what was ever appended


class BusyServerError(UnreachableError):
    """The server answers, but takes no writes for now: read-only, out of memory, loading. Waiting may help."""


def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> Client:
    """Return a client; it connects at its first command. Nothing is retried here: a retried XADD would append twice."""
    return redis.asyncio.Redis.from_url(
        url, protocol=2, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


def patient_retry(url: str, pause_s: Callable[[int], float], announce: Announce) -> Retry:
    """Return a policy for a reader: never give up, pause as told, say so. Only for commands that may be repeated."""
    return Retry(_Announced(url, pause_s, announce), -1, (RedisConnectionError, RedisTimeoutError, ResponseError))


class _Announced(AbstractBackoff):
    """A pause that is said aloud; `call_with_retry` hands over only the count, so the reason is a general one."""

    def __init__(self, url: str, pause_s: Callable[[int], float], announce: Announce) -> None:
        self._server = hide_password(url)
        self._pause_s = pause_s
        self._announce = announce

    def __deepcopy__(self, memo: object) -> _Announced:
        return self  # redis-py copies the policy for every connection; the announcer must stay one

    def compute(self, failures: int) -> float:
        # redis-py now and then swallows a cancellation while it connects: with a policy that never gives up, a reader
        # that is told to stop would then go on for as long as the server is away.
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError
        pause = self._pause_s(failures)
        self._announce(f"cannot read from {self._server}", pause)
        return pause


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise what redis-py raises as FieldtallyError, naming the server and the next step."""
    try:
        yield
    except FieldtallyError:
        raise
    except (TimeoutError, RedisError, OSError) as error:
        raise in_words(error, url) from error


def in_words(error: BaseException, url: str) -> FieldtallyError:
    """Say what an error of redis-py means for the user."""
    # While it connects, redis-py wraps what the server said, such as a wrong password, in a plain ConnectionError.
    if isinstance(error, RedisConnectionError) and isinstance(error.__cause__, RedisError):
        error = error.__cause__
    server = hide_password(url)
    match error:
        case AuthenticationError() | NoPermissionError():
            return UnreachableError(
                f"{server} refuses this user: check name, password and rights in FIELDTALLY_REDIS_URL"
            )
        case BusyLoadingError():
            return BusyServerError(f"{server} is still loading its data: wait")
        case ReadOnlyError():
            return BusyServerError(
                f"{server} is a read-only replica: point FIELDTALLY_REDIS_URL at the primary, or wait for it"
            )
        case OutOfMemoryError():
            return BusyServerError(f"{server} is out of memory (maxmemory): give it more; nothing was written")
        case MaxConnectionsError():
            return UnreachableError(f"too many connections to {server} are in use here: wait, then try again")
        case RedisConnectionError() if "max number of clients" in str(error):
            return UnreachableError(f"{server} has too many clients (maxclients): wait, or let it take more")
        case RedisConnectionError() | RedisTimeoutError() | OSError() | TimeoutError():
            return UnreachableError(f"cannot reach {server}: is it running, and is FIELDTALLY_REDIS_URL right?")
        case ResponseError() if str(error).startswith("MISCONF"):
            return BusyServerError(f"{server} cannot write to its disk: look at its log; nothing was written")
        case ResponseError() if str(error).startswith("WRONGTYPE"):
            return DamagedLogError(
                f"a key of Fieldtally on {server} holds another kind of value: is FIELDTALLY_PREFIX used by others?"
            )
        case ResponseError() if str(error).startswith("EXECABORT"):
            return BusyServerError(f"{server} refused the write and applied none of it: look at its log")
        case _:
            said = " ".join(str(error).split())[:120]
            return UnreachableError(f"{server} answered {type(error).__name__}: {said}")


async def check_server(client: Client, url: str) -> dict[str, Any]:
    """Return the server's INFO, or refuse a server that could lose what it was given (DESIGN section 4)."""
    with translated(url):
        info: dict[str, Any] = await client.info()
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
        raise UnreachableError(f"{hide_password(url)} is version {version}: Fieldtally needs Redis 7 or Valkey")
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        raise UnreachableError(
            f"{hide_password(url)} has maxmemory-policy {policy}, which may delete reports: "
            "set `maxmemory-policy noeviction` and start again"
        )
    return info


async def refusing_writes(client: Client, url: str) -> FieldtallyError | None:
    """Return why the server takes no writes at the moment, or None; it is asked, and nothing is written to find out.

    Raises:
        UnreachableError: the server does not answer.

    """
    with translated(url):
        info: dict[str, Any] = await client.info("memory", "persistence", "replication")
        counted = int(info.get("used_memory", 0)) - int(info.get("mem_not_counted_for_evict", 0))
        if 0 < int(info.get("maxmemory", 0)) < counted:
            return in_words(OutOfMemoryError(), url)
        if info.get("role") == "slave" and info.get("slave_read_only", 1):
            return in_words(ReadOnlyError(), url)
        if info.get("aof_enabled") and info.get("aof_last_write_status", "ok") != "ok":
            return in_words(ResponseError("MISCONF"), url)
        if info.get("rdb_last_bgsave_status", "ok") != "ok" and await _stops_after_failed_snapshots(client):
            return in_words(ResponseError("MISCONF"), url)
    return None


async def _stops_after_failed_snapshots(client: Client) -> bool:
    """Tell whether a snapshot that failed keeps the server from writing: where it makes some, and is set so."""
    try:
        found: Any = await client.config_get("save", "stop-writes-on-bgsave-error")
    except ResponseError:  # a user without that right; both are on by default
        return True
    return bool(found.get("save")) and found.get("stop-writes-on-bgsave-error") == "yes"
