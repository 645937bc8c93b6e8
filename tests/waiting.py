"""One way to wait in tests: for a condition with a limit, never for a length of time that is usually enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_STEP_S = 0.005


def wait_for(condition: Callable[[], T], *, within_s: float = 30.0, what: str) -> T:
    """Return the first true value of `condition`.

    Raises:
        AssertionError: it was still false after `within_s` seconds; the text names `what` and the last value.

    """
    deadline = time.monotonic() + within_s
    while True:
        # The clock is read first, so that a slow condition is still judged once after the deadline.
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"waited {within_s:g} s for {what}; last seen: {value!r}")
        time.sleep(_STEP_S)
