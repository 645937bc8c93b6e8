"""The tail of a side's log: what stands in it and may not be in the index yet, whoever wrote it.

The index is the projector's and may lag. What is appended here is noted at once; what others append, a second gateway
or this one before it was started anew, shows in the log's length and is read then. Everything here is only where to
look: what counts is what stands in the log there.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from schemas.events import Event
from schemas.vocabulary import START, Position, order
from services.tally.fold import Key

Identity: TypeAlias = tuple[Key, int]
"""A report's key and revision."""

_Name = TypeVar("_Name", Key, Identity)


def name_of(event: Event) -> Key:
    """Return the bytes of an event's own id."""
    return event.id.int.to_bytes(16, "big")


def identity_of(event: Event) -> Identity:
    """Return the key of the report that an event is or amends, and its revision."""
    return (event.amends or event.id).int.to_bytes(16, "big"), event.revision


class Tail:
    """Where reports stand that the index may not know; read to `read_to`.

    `changes` counts how often something was forgotten: who has asked the index before asks again.
    """

    def __init__(self) -> None:
        self.read_to = START
        self.changes = 0
        self._length: int | None = None
        self._trimmed = START
        self._reports: dict[Identity, Position] = {}
        self._amendments: dict[Key, Position] = {}

    def start_at(self, position: Position) -> None:
        """Begin anew behind a position: the log or the index is not the one it was."""
        self.read_to = position
        self.changes += 1
        self._length = None
        self._reports.clear()
        self._amendments.clear()

    def is_indexed(self, position: Position) -> None:
        """Forget what the index has now."""
        if order(position) > order(self.read_to):
            self.read_to = position
        self.changes += 1
        _forget(self._reports, position)
        _forget(self._amendments, position)

    def lacks(self, length: int, trimmed: Position, under_way: int) -> bool:
        """Tell whether a log of this length may hold what is not noted; `under_way`: appended here, not confirmed.

        `trimmed` is how far it had been trimmed just before: what was taken out would hide as much that was added.
        """
        if self._length is None or trimmed != self._trimmed:
            return True
        return not self._length <= length <= self._length + under_way

    def is_read(self, length: int, trimmed: Position = START) -> None:
        """All of the log is noted that it held when it had this length."""
        self._length = length
        self._trimmed = trimmed

    def is_unsure(self) -> None:
        """Something may or may not have been appended: whoever looks next reads it."""
        self._length = None

    def append(self, identity: Identity, name: Key, position: Position) -> None:
        """Note what was appended here, by its identity and the bytes of its own id."""
        if self._length is not None:
            self._length += 1
        self._reports[identity] = position
        if identity[1]:
            self._amendments[name] = position

    def read(self, event: Event | None, position: Position) -> None:
        """Note what stands next in the log; of the same twice, the first one counts."""
        if order(position) > order(self.read_to):
            self.read_to = position
        if event:
            self._reports.setdefault(identity_of(event), position)
            if event.revision:
                self._amendments.setdefault(name_of(event), position)

    def report(self, identity: Identity) -> Position | None:
        """Return where a report stands."""
        return self._reports.get(identity)

    def amendment(self, name: Key) -> Position | None:
        """Return where the amendment of this id stands."""
        return self._amendments.get(name)

    def __len__(self) -> int:
        return len(self._reports)


def _forget(noted: dict[_Name, Position], position: Position) -> None:
    """Take out what stands up to a position: first noted, first gone, so one in disorder stays a little longer."""
    reached = order(position)
    while noted:
        name = next(iter(noted))
        if order(noted[name]) > reached:
            return
        del noted[name]
