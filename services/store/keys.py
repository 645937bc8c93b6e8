"""Every key name, as a pure function; nowhere else does a key stand in the code (DESIGN section 4).

The braces are a Redis Cluster hash tag: all keys of a partition lie in one slot, so its updates are atomic there too.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from schemas.vocabulary import Side

GENERATION_NAME: Final = "g[1-9][0-9]{0,8}"
"""What a generation is called, as a regular expression; they are counted up."""


def principals_key(prefix: str) -> str:
    """Hash: SHA-256 of a token to role, side, unit, device and state; of no partition."""
    return f"{prefix}:principals"


class PartitionKeys(Struct, frozen=True):
    """The keys of one side's partition under a prefix."""

    prefix: str
    side: Side

    @property
    def log(self) -> str:
        """Stream of entries with the fields `event` and `by`; append-only."""
        return f"{{{self.prefix}:{self.side}}}:log"

    @property
    def live(self) -> str:
        """String: name of the live generation."""
        return f"{{{self.prefix}:{self.side}}}:live"

    @property
    def changes(self) -> str:
        """Capped stream: the change feed."""
        return f"{{{self.prefix}:{self.side}}}:changes"

    @property
    def audit(self) -> str:
        """String: position, digest and time of the last audit that found live and rebuilt tallies equal."""
        return f"{{{self.prefix}:{self.side}}}:audit"

    @property
    def trimmed(self) -> str:
        """Hash: the position up to which the stream was trimmed, and entries and head of the archive that has it."""
        return f"{{{self.prefix}:{self.side}}}:trimmed"

    @property
    def requeued(self) -> str:
        """Hash: side and position of a parked entry to who appended it to this log again, why, when and where."""
        return f"{{{self.prefix}:{self.side}}}:requeued"

    @property
    def of_generations(self) -> str:
        """Pattern, as SCAN takes it, of the keys of all generations; other keys may match it too."""
        return f"{{{self.prefix}:{self.side}}}:g*:*"

    def generation_of(self, key: str) -> str:
        """Return the name of the generation that a key is of, or the empty string."""
        named = re.match(f"({GENERATION_NAME}):", key.removeprefix(f"{{{self.prefix}:{self.side}}}:"))
        return named[1] if named else ""

    def generation(self, name: str) -> GenerationKeys:
        """The keys of one complete set of derived state."""
        return GenerationKeys(f"{{{self.prefix}:{self.side}}}:{name}")


class GenerationKeys(Struct, frozen=True):
    """The keys of one generation: all of them hashes."""

    base: str

    @property
    def all(self) -> tuple[str, ...]:
        """Every key there is of a generation."""
        return (
            *(self.checkpoint, self.tallies, self.index, self.amendments),
            *(self.devices, self.operations, self.parked),
        )

    @property
    def checkpoint(self) -> str:
        """Position, entries consumed, fold version and counters."""
        return f"{self.base}:checkpoint"

    @property
    def tallies(self) -> str:
        """Cell to absolute count."""
        return f"{self.base}:tallies"

    @property
    def index(self) -> str:
        """Key (16 bytes) to revision and position of the version in force."""
        return f"{self.base}:index"

    @property
    def amendments(self) -> str:
        """Id of an amendment (16 bytes) to where it stands and what it replaced: the index goes by originals."""
        return f"{self.base}:amendments"

    @property
    def devices(self) -> str:
        """Device to highest number, missing ranges, last position."""
        return f"{self.base}:devices"

    @property
    def operations(self) -> str:
        """Operation to its effective plan."""
        return f"{self.base}:operations"

    @property
    def parked(self) -> str:
        """Position to reason, detail and digest."""
        return f"{self.base}:parked"
