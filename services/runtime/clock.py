"""The clock: the one place that asks what time it is. Nothing below a composition root has another."""

from __future__ import annotations

import time


def monotonic() -> float:
    """Return seconds that only ever go on, from no particular beginning: for limits, not for dates."""
    return time.monotonic()
