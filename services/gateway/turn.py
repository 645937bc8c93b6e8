"""A turn: what becomes of reports that are recorded together, given what the log holds around them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from schemas.events import Event
from schemas.http import Problem, Result, problem
from schemas.principals import Principal
from schemas.vocabulary import Position, order, parse_source
from services.gateway.admission import Held, Repeated, refuse_amendment, settle, settle_id
from services.gateway.tail import Identity, identity_of, name_of
from services.tally.fold import Key

UNAVAILABLE: Final = 503

_PART_ONLY: Final = problem("unavailable", UNAVAILABLE, "the server took a part of this batch only", retryable=True)


class Submitted:
    """One admitted report, who sent it, and its identity: the key of the report that it is or amends, its revision.

    `refused` is why it may not be recorded now; if the log holds it already, it is a duplicate all the same.
    """

    __slots__ = ("canonical", "event", "identity", "key", "name", "principal", "refused")

    def __init__(self, event: Event, canonical: bytes, principal: Principal, refused: Problem | None = None) -> None:
        self.event = event
        self.canonical = canonical
        self.principal = principal
        self.refused = refused
        self.identity: Identity = identity_of(event)
        self.key: Key = self.identity[0]
        self.name: Key = name_of(event) if event.revision else self.key


class Around:
    """What the log holds around the reports of a turn."""

    def __init__(self, found: Iterable[Held]) -> None:
        self._reports: dict[Identity, Held] = {}
        self._amendments: dict[Key, Held] = {}
        for one in sorted(found, key=lambda one: order(one.position)):  # of the same twice, the first one counts
            self._reports.setdefault(identity_of(one.event), one)
            if one.event.revision:
                self._amendments.setdefault(name_of(one.event), one)

    def same(self, one: Submitted) -> Held | None:
        """Return what stands there as this report."""
        return self._reports.get(one.identity)

    def namesake(self, one: Submitted) -> Held | None:
        """Return another report with this one's id; where that is this report itself, `same` has it."""
        found = self._amendments.get(one.name)
        if found is None and one.event.revision:
            found = self._reports.get((one.name, 0))
        return found

    def unit(self, one: Submitted) -> str | None:
        """Return the unit that made what this report amends."""
        found = self._reports.get((one.key, 0))
        return parse_source(found.event.source).unit if found else None

    def amended(self, one: Submitted) -> Event | None:
        """Return the amendment that this report amends, instead of its original."""
        found = self._amendments.get(one.key)
        return found.event if found else None


NOTHING_AROUND: Final = Around(())


class Turn:
    """What becomes of the reports of one turn, one after the other, and which of them are to be appended."""

    def __init__(self) -> None:
        self.to_append: list[Submitted] = []
        self._became: list[Result | tuple[Submitted, int]] = []  # a result, or the place among those to be appended
        self._first: dict[Identity, int] = {}
        self._named: dict[Key, int] = {}

    def judge(self, one: Submitted, held: Around) -> None:
        """Decide about the next report, as if those before it stood in the log already."""
        repeated = None if held is NOTHING_AROUND else _settled(one, held)
        refused = one.refused
        if one.event.revision and not refused:
            reporting_unit, amended = self._unit(one) or held.unit(one), self._amended(one) or held.amended(one)
            refused = refuse_amendment(one.event, one.principal, reporting_unit, amended)
        # A plan may have changed since a report was recorded: who lost its receipt is told that it is a duplicate.
        if repeated and not repeated.problem:
            self._became.append(_repeated(one, repeated))
        elif refused:
            self._became.append(rejected(one, refused))
        elif repeated:
            self._became.append(_repeated(one, repeated))
        elif (at := self._first.get(one.identity, self._named.get(one.name))) is not None:
            self._became.append((one, at))
        else:
            at = len(self.to_append)
            self._first[one.identity] = at
            self._named[one.name] = at
            self._became.append((one, at))
            self.to_append.append(one)

    def results(self, positions: Sequence[Position | None]) -> list[Result]:
        """Return what became of each, given where those that were to be appended stand now."""
        return [
            became if isinstance(became, Result) else self._appended(became[0], became[1], positions[became[1]])
            for became in self._became
        ]

    def _appended(self, one: Submitted, at: int, position: Position | None) -> Result:
        first = self.to_append[at]
        if position is None:
            return rejected(one, _PART_ONLY)
        if first is one:
            return Result(id=str(one.event.id), status="recorded", position=position)
        held = Held(first.event, position)
        return _repeated(one, (settle(one.event, held) if first.identity == one.identity else None) or settle_id(held))

    def _unit(self, one: Submitted) -> str | None:
        at = self._first.get((one.key, 0))
        return None if at is None else parse_source(self.to_append[at].event.source).unit

    def _amended(self, one: Submitted) -> Event | None:
        at = self._named.get(one.key)
        event = None if at is None else self.to_append[at].event
        return event if event and event.revision else None


def _settled(one: Submitted, held: Around) -> Repeated | None:
    namesake = held.namesake(one)
    return settle(one.event, held.same(one)) or (settle_id(namesake) if namesake else None)


def rejected(one: Submitted, refused: Problem) -> Result:
    """Return the result of a report that is refused."""
    return Result(id=str(one.event.id), status="rejected", problem=refused)


def _repeated(one: Submitted, repeated: Repeated) -> Result:
    ident, position = str(one.event.id), repeated.position
    if repeated.problem:
        return Result(id=ident, status="conflict", position=position, problem=repeated.problem)
    return Result(id=ident, status="duplicate", position=position)
