"""What is live beside the tallies, held against the log: counters, devices, operations, parked entries.

No published figure rests on it, so what differs here changes no verdict: it deserves a look, since screens, devices and
the desk are told of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from schemas.tallies import DeviceNumbers, Operation
from schemas.vocabulary import Position, Side, order
from services.archive.engine import Engine
from services.archive.look import POSITIONS_MAX, Item, limited
from services.replay.audit import Live
from services.tally.fold import State

KIND: Final = "beside-the-tallies"
_REBUILD: Final = "`fieldtally rebuild --swap` makes it anew"


def beside_the_tallies(
    lives: Sequence[Live], at_live: Sequence[State], ends: Mapping[Side, Position], engine: Engine
) -> list[Item]:
    """Return an item for each thing beside the live tallies that the log has otherwise, at the same position.

    `at_live` are the states that were rebuilt where the live ones stand. The parked entries are held against those in
    the engine, which holds each side's log up to its end in `ends`.
    """
    items = []
    for live, state in zip(lives, at_live, strict=True):
        if live.stored.checkpoint is not None:
            side = live.side.side
            items += [
                Item(KIND, side, positions, f"{what}; {_REBUILD}")
                for positions, what in (
                    *_counted(live, state),
                    *_devices(live.stored.devices, state),
                    *_operations(live.stored.operations, state),
                    *_parked(live, min(live.position, ends[side], key=order), engine),
                )
            ]
    return limited(KIND, items)


def _counted(live: Live, state: State) -> Iterator[tuple[list[str], str]]:
    checkpoint = live.stored.checkpoint
    if checkpoint is None:
        return
    for differing in (
        _differing({"entries": checkpoint.entries}, {"entries": state.checkpoint.entries}),
        _differing(_members(checkpoint.counters), _members(state.checkpoint.counters)),
    ):
        for name, (held, rebuilt) in differing.items():
            yield [], f"checkpoint: {name.replace('_', '-')} {held:,}, by the log {rebuilt:,}"


def _devices(live: Mapping[str, DeviceNumbers], state: State) -> Iterator[tuple[list[str], str]]:
    for device, (held, rebuilt) in _differing(live, state.devices).items():
        if held is None:
            what = "not there, though the log has reports of it"
        elif rebuilt is None:
            what = "there, though the log has no report of it"
        else:
            what = ", ".join(
                f"{name.replace('_', ' ')} {_ranges(one)}, by the log {_ranges(other)}"
                for name, (one, other) in _differing(_members(held), _members(rebuilt)).items()
            )
        yield [f"{state.side}:{(rebuilt or held).last_position}"], f"device {device}: {what}"


def _ranges(value: Any) -> str:
    if not isinstance(value, list):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return " and ".join(f"{first}–{last}" for first, last in value[:3]) + ("…" if value[3:] else "") or "none"


def _operations(live: Mapping[str, Operation], state: State) -> Iterator[tuple[list[str], str]]:
    for operation, (held, rebuilt) in _differing(live, state.operations).items():
        if held is None:
            what = "not there, though the log has it"
        elif rebuilt is None:
            what = "there, though the log does not have it"
        else:
            what = f"other {' and '.join(_differing(_members(held), _members(rebuilt)))} than by the log"
        yield [], f"operation {operation}: {what}"


def _parked(live: Live, last: Position, engine: Engine) -> Iterator[tuple[list[str], str]]:
    side = live.side.side
    in_log: dict[Position, str] = dict(engine.rows(f"SELECT position, reason FROM parked WHERE side = '{side}'"))  # noqa: S608  # our own text
    differing = _differing(
        _until({position: one.reason for position, one in live.parked.items()}, last), _until(in_log, last)
    )
    for what, chosen in (
        ("not set aside, though the log has it so", [at for at, (held, _) in differing.items() if held is None]),
        ("set aside, though it is not by the log", [at for at, (_, rebuilt) in differing.items() if rebuilt is None]),
        ("set aside for another reason than by the log", [at for at, both in differing.items() if all(both)]),
    ):
        if chosen:
            places = [f"{side}:{position}" for position in sorted(chosen, key=order)[:POSITIONS_MAX]]
            yield places, f"parked: {len(chosen):,} {'entry' if len(chosen) == 1 else 'entries'} {what}"


def _until(reasons: Mapping[Position, str], last: Position) -> dict[Position, str]:
    return {position: reason for position, reason in reasons.items() if order(position) <= order(last)}


def _members(struct: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(struct)


def _differing(held: Mapping[Any, Any], rebuilt: Mapping[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    """Return what two maps have otherwise, by key, sorted; None where a map does not have it."""
    names: Iterable[Any] = sorted(held.keys() | rebuilt.keys())
    return {name: (held.get(name), rebuilt.get(name)) for name in names if held.get(name) != rebuilt.get(name)}
