"""The plan of an operation: which of the reports about it is in force, and which sections it covers how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec.structs import replace

from schemas.events import OperationClosed, OperationOpened
from schemas.tallies import Closing, Opening, Operation
from schemas.vocabulary import Coverage

CoverageBySection: TypeAlias = dict[tuple[str, str], Coverage]


def put_in(operation: Operation, key: bytes, event: OperationOpened | OperationClosed) -> Operation:
    """Return the operation with one more report about it."""
    match event:
        case OperationOpened():
            opening = Opening(event.time, event.data)
            return _settle(replace(operation, openings=operation.openings | {key.hex(): opening}))
        case OperationClosed():
            closing = Closing(event.time, event.data.closed)
            return _settle(replace(operation, closings=operation.closings | {key.hex(): closing}))


def take_out(operation: Operation, key: bytes) -> Operation:
    """Return the operation without a report that no longer counts."""
    openings = {name: opening for name, opening in operation.openings.items() if name != key.hex()}
    closings = {name: closing for name, closing in operation.closings.items() if name != key.hex()}
    return _settle(replace(operation, openings=openings, closings=closings))


def coverage_by_section(operations: Mapping[str, Operation]) -> CoverageBySection:
    """Return the coverage of each (operation, section) that a plan in force names."""
    return {
        (name, plan.section): plan.coverage
        for name, operation in operations.items()
        if operation.plan
        for plan in operation.plan.sections
    }


def _settle(operation: Operation) -> Operation:
    """The latest report by its own time is in force, ties by key: so the order of arrival never matters."""
    opening = max(operation.openings.items(), key=lambda item: (item[1].time, item[0]), default=None)
    closing = max(operation.closings.items(), key=lambda item: (item[1].time, item[0]), default=None)
    return replace(
        operation,
        plan=opening[1].plan if opening else None,
        closed=closing[1].closed if closing else None,
    )
