"""Ends tasks for certain: one cancellation may be lost."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_CANCEL_AGAIN_S: Final = 0.05


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough. redis-py asks with a timeout of zero whether a pooled connection still lives, and asyncio takes
    a cancellation that was waiting then for the timeout's own: Ctrl-C while rows were printed would be lost.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not print it
