"""Replays and rebuilds the sides at once, each in a process of its own where there is enough to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from schemas.vocabulary import Position, Side, order
from services.replay.history import History, history
from services.replay.rebuild import Rebuildable, Rebuilt, rebuild
from services.replay.replay import Replay
from services.runtime.collector import calm_collector
from services.runtime.errors import FieldtallyError
from services.runtime.forked import Advance, Show, run_forked, unseen
from services.runtime.settings import Settings, SideSettings
from services.runtime.signals import run_loop
from services.store.connection import connect
from services.store.generations import RedisGenerations
from services.store.keys import PartitionKeys
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import WholeLog, open_log
from services.tally.balances import Replayed
from services.tally.cells import Cell


def replay_sides(
    settings: Settings, url: str, stops: Mapping[Side, Sequence[Position]], show: Show = unseen
) -> dict[Side, list[Replayed]]:
    """Return each side's state at each of its stops, which are positions in ascending order."""
    works = {
        str(side.side): partial(_replay, settings, url, side, stops[side.side])
        for side in settings.sides
        if side.side in stops
    }
    return dict(zip(stops, run_forked(works, show), strict=True))


def rebuild_sides(settings: Settings, url: str, stops: Mapping[Side, Position]) -> dict[Side, Replayed]:
    """Return each side's state at one position, one side after the other, in this process."""
    return {
        side.side: run_loop(_states(settings, url, side, [stops[side.side]], lambda _: None))[0]
        for side in settings.sides
        if side.side in stops
    }


def histories_of_sides(
    settings: Settings, url: str, stops: Mapping[Side, Position], watched: Callable[[Cell], bool], show: Show = unseen
) -> dict[Side, History]:
    """Return what changed the watched cells of each side, up to and with a position; one side after the other, here."""
    with show() as advance:
        return {
            side.side: run_loop(_watched(settings, url, side, stops[side.side], watched, advance))
            for side in settings.sides
            if side.side in stops
        }


async def _watched(
    settings: Settings, url: str, side: SideSettings, stop: Position, watched: Callable[[Cell], bool], advance: Advance
) -> History:
    client = connect(url)
    try:
        log = open_log(client, url, PartitionKeys(settings.prefix, side.side), settings.archive_dir)
        [stop] = await _reached(log, [stop])
        return await history(side, log, stop, watched, await log.recurring(stop), advance)
    finally:
        await client.aclose()


def _replay(
    settings: Settings, url: str, side: SideSettings, stops: Sequence[Position], advance: Advance
) -> list[Replayed]:
    calm_collector()
    return run_loop(_states(settings, url, side, stops, advance))


async def _states(
    settings: Settings, url: str, side: SideSettings, stops: Sequence[Position], advance: Advance
) -> list[Replayed]:
    client = connect(url)
    try:
        log = open_log(client, url, PartitionKeys(settings.prefix, side.side), settings.archive_dir)
        stops = await _reached(log, stops)
        replay = Replay(side, log, await log.recurring(stops[-1]))
        states = []
        for stop in stops:
            await replay.run(stop, advance)
            states.append(replay.replayed())
        return states
    finally:
        await client.aclose()


async def _reached(log: WholeLog, stops: Sequence[Position]) -> list[Position]:
    """Return positions, or where the log ends now: what comes in meanwhile belongs to no replay that has begun."""
    end = (await log.extent()).last
    return [min(stop, end, key=order) for stop in stops]


def rebuild_generations(
    settings: Settings, url: str, *, swap: bool, show: Show = unseen
) -> dict[Side, Rebuilt | FieldtallyError]:
    """Fill a new generation of each side; what keeps one side from it stands in its place, and the others go on."""
    works = {str(side.side): partial(_rebuild, settings, url, side, swap) for side in settings.sides}
    return dict(zip([side.side for side in settings.sides], run_forked(works, show), strict=True))


def _rebuild(
    settings: Settings,
    url: str,
    side: SideSettings,
    swap: bool,  # noqa: FBT001  # by partial
    advance: Advance,
) -> Rebuilt | FieldtallyError:
    calm_collector()
    return run_loop(_rebuilt(settings, url, side, advance, swap=swap))


async def _rebuilt(
    settings: Settings, url: str, side: SideSettings, advance: Advance, *, swap: bool
) -> Rebuilt | FieldtallyError:
    client, keys = connect(url), PartitionKeys(settings.prefix, side.side)
    try:
        stores = RedisTallyStore(client, url, keys), RedisGenerations(client, url, keys)
        log = open_log(client, url, keys, settings.archive_dir)
        return await rebuild(Rebuildable(side, log, *stores), swap=swap, on_progress=advance)
    except FieldtallyError as error:
        return error
    finally:
        await client.aclose()
