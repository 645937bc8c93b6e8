"""Server-sent events to any number of screens: each message is written once for all who may see the same sides.

A stream's `id:` says where every side that it shows stands, so that it goes on from there after any interruption, on
this server or another. What was sent lately is kept for those who come back; who was away longer takes a snapshot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from schemas.screen import ChangeMessage, HeartbeatMessage, ResetMessage, ResetReason, SideMessage
from schemas.vocabulary import START, Position, Side, order
from services.runtime.stops import read_positions

KEPT: Final = 2_000
"""Changes of a side that are kept for those who come back."""
GATHER_S: Final = 0.02
"""Messages of so long go out in one piece: a write for each of them would cost most of the work."""
BEHIND_BYTES_MAX: Final = 1_048_576
RETRY_MS: Final = 2_000

Audience: TypeAlias = tuple[Side, ...]
"""The sides that somebody may see, in the order of the settings."""

_json: Final = msgspec.json.Encoder()


def write_id(positions: Mapping[Side, Position], audience: Audience) -> str:
    """Write where a stream stands: the position of its one side, or of each with its name."""
    if len(audience) == 1:
        return positions[audience[0]]
    return ",".join(f"{side}:{positions[side]}" for side in audience)


def read_id(text: str, audience: Audience) -> dict[Side, Position] | None:
    """Read what `write_id` wrote for the same audience; None for anything else.

    Also for what it wrote for more sides: a screen that sees fewer than before must not go on showing them.
    """
    found = read_positions(f"{audience[0]}:{text}" if len(audience) == 1 and ":" not in text else text)
    return found if found and found.keys() == set(audience) else None


class _Kept(Struct, frozen=True):
    position: Position
    after: Position
    body: bytes


class Stream:
    """One open stream: what is still to be sent on it, and when there is something."""

    def __init__(self) -> None:
        self.ended = False
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._something = asyncio.Event()

    def push(self, piece: bytes) -> None:
        """Take a piece to be sent. Who does not read fast enough is told to begin anew, and the stream ends."""
        if self.ended:
            return
        if self._bytes + len(piece) > BEHIND_BYTES_MAX:
            self._pieces = [_event("reset", ResetMessage("slow"))]
            self.ended = True
        else:
            self._pieces.append(piece)
            self._bytes += len(piece)
        self._something.set()

    def end(self) -> None:
        """Send what there is, then nothing more."""
        self.ended = True
        self._something.set()

    async def next(self) -> bytes:
        """Return all that is to be sent, once there is something; nothing at the end."""
        await self._something.wait()
        self._something.clear()
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        if self.ended:
            self._something.set()
        return b"".join(pieces)


class Streams:
    """All open streams."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = tuple(sides)
        self._open: dict[Audience, set[Stream]] = {}
        self._kept: dict[Side, deque[_Kept]] = {side: deque(maxlen=KEPT) for side in sides}
        self._positions: dict[Side, Position] = dict.fromkeys(sides, START)
        self._gathered: dict[Audience, list[bytes]] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return sum(len(streams) for streams in self._open.values())

    @property
    def audiences(self) -> list[Audience]:
        """Who has streams open."""
        return [audience for audience, streams in self._open.items() if streams]

    def open(
        self, audience: Audience, since: str, heartbeat: HeartbeatMessage, sides: Sequence[SideMessage] = ()
    ) -> Stream:
        """Open a stream that goes on from `since`, or begins with a reset if it cannot; without, it begins now."""
        self.flush()
        stream = Stream()
        stream.push(b"retry: %d\n\n" % RETRY_MS)
        for piece in self._missed(audience, since) if since else ():
            stream.push(piece)
        stream.push(_event("heartbeat", heartbeat))
        if self._closed:
            stream.end()
        for side in sides:  # told when they change, and kept by nobody: who was away may have missed one
            stream.push(_event("side", side))
        self._open.setdefault(audience, set()).add(stream)
        return stream

    def close(self, audience: Audience, stream: Stream) -> None:
        """Forget a stream."""
        self._open.get(audience, set()).discard(stream)

    def close_all(self) -> None:
        """End all streams, and whatever is still opened; browsers come back when somebody serves again."""
        self._closed = True
        self.flush()
        for streams in self._open.values():
            for stream in streams:
                stream.end()

    def start_at(self, side: Side, position: Position) -> None:
        """A side was loaded at a position: who knows an earlier state takes a snapshot."""
        self._kept[side].clear()
        self._positions[side] = position

    def reset(self, side: Side, position: Position, reason: ResetReason) -> None:
        """A side was loaded anew, and so has everybody to."""
        self.start_at(side, position)
        self._tell(side, lambda _: _event("reset", ResetMessage(reason)))

    def change(self, message: ChangeMessage, after: Position) -> None:
        """Tell a change to those who may see its side."""
        body = _event("change", message)
        self._kept[message.side].append(_Kept(message.position, after, body))
        self._positions[message.side] = message.position
        self._tell(message.side, lambda audience: self._with_id(audience, self._positions, body))

    def side(self, message: SideMessage) -> None:
        """Tell that a side's operations or devices have changed."""
        body = _event("side", message)
        self._tell(message.side, lambda _: body)

    def heartbeat(self, audience: Audience, message: HeartbeatMessage) -> None:
        """Tell an audience that all is well, or what is not."""
        self._gather(audience, _event("heartbeat", message))

    def flush(self) -> None:
        """Hand on what was gathered."""
        if self._flush:
            self._flush.cancel()
            self._flush = None
        gathered, self._gathered = self._gathered, {}
        for audience, pieces in gathered.items():
            piece = b"".join(pieces)
            for stream in self._open.get(audience, ()):
                stream.push(piece)

    def _tell(self, side: Side, piece_for: Callable[[Audience], bytes]) -> None:
        for audience in self.audiences:
            if side in audience:
                self._gather(audience, piece_for(audience))

    def _gather(self, audience: Audience, piece: bytes) -> None:
        self._gathered.setdefault(audience, []).append(piece)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def _missed(self, audience: Audience, since: str) -> Iterable[bytes]:
        known = read_id(since, audience)
        missed = None if known is None else [self._after(side, known[side]) for side in audience]
        if known is None or missed is None or any(one is None for one in missed):
            return [_event("reset", ResetMessage("too-old"))]
        pieces = []
        for side, kept in zip(audience, missed, strict=True):
            for one in kept or ():
                known[side] = one.position
                pieces.append(self._with_id(audience, known, one.body))
        return pieces

    def _after(self, side: Side, position: Position) -> list[_Kept] | None:
        """Return what came after a position, None if that is not known any more."""
        if position == self._positions[side]:
            return []
        kept = self._kept[side]
        found = [one for one in kept if order(one.position) > order(position)]
        return found if found and found[0].after == position else None

    @staticmethod
    def _with_id(audience: Audience, positions: Mapping[Side, Position], body: bytes) -> bytes:
        return b"id: %b\n%b" % (write_id(positions, audience).encode(), body)


def _event(name: str, message: Struct) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _json.encode(message))
