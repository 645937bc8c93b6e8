"""Runs the projector with a process for each side, so that two sides keep two cores busy.

Sides share nothing but the server, and the checkpoint makes any number of projectors safe; so the processes need no
more from each other than to start and to end together.
"""

from __future__ import annotations

import signal
from functools import partial

from msgspec.structs import replace

from services.projector.app import Projector
from services.runtime.forked import Advance, Show, run_forked, unseen
from services.runtime.logging import set_up_logging
from services.runtime.settings import Settings
from services.runtime.signals import run_loop


def project(settings: Settings, url: str, *, until_caught_up: bool, show: Show = unseen) -> None:
    """Follow every side's log until caught up or told to end; KeyboardInterrupt if that was by Ctrl-C."""
    works = {
        str(side.side): partial(_follow, replace(settings, sides=(side,)), url, until_caught_up)
        for side in settings.sides
    }
    run_forked(works, show)


def _follow(settings: Settings, url: str, until_caught_up: bool, advance: Advance) -> None:  # noqa: FBT001  # by partial
    logger = set_up_logging(settings.log_format, settings.log_level)
    projector = Projector(settings, url, logger, until_caught_up=until_caught_up, on_progress=advance)
    run_loop(_to_its_end(projector))
    if projector.interrupted:
        raise KeyboardInterrupt


async def _to_its_end(projector: Projector) -> None:
    try:
        await projector.run()
    finally:
        # A closing loop closes what signals are written to before it lets go of them; Python would print a traceback
        # for one that comes in between. It is told to end already.
        signal.set_wakeup_fd(-1)
