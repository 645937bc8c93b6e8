"""The clock: the one place that asks what time it is. Nothing below a composition root has another."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return what time it is, in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return seconds that only ever go on, from no particular beginning: for limits, not for dates."""
    return time.monotonic()
