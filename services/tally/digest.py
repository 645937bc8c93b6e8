"""The state digest: one value that two parties can read to each other to know that their tallies are equal."""

from __future__ import annotations

from hashlib import sha256

from services.tally.cells import Tallies, cell_text


def state_digest(tallies: Tallies) -> str:
    """Return SHA-256, in hexadecimal, over the sorted lines `cell=count` of the non-zero cells (DESIGN section 3)."""
    lines = sorted(f"{cell_text(cell)}={count}\n" for cell, count in tallies.items() if count)
    return sha256("".join(lines).encode()).hexdigest()
