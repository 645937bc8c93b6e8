"""`up`: everything in one go, for a first look and for one machine: the server, the projector, the gateway."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.cli.command import INTERRUPTED, command, settings
from services.cli.gateway import serve_and_say, told_to_end
from services.cli.output import note
from services.cli.server import kept_running, projector_beside, server_url
from services.gateway.app import listen
from services.runtime.errors import FieldtallyError
from services.runtime.logging import set_up_logging

LOOK_S: Final = 0.1

_INTERRUPTED: Final = (INTERRUPTED, -signal.SIGINT)
_TOLD_TO_END: Final = (0, 128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGHUP, *_INTERRUPTED)
"""What a projector ends with that was told to. A signal to a whole group reaches it before us, or after."""


@command("up", "up")
def up() -> int:
    """Run the embedded server, the projector and the gateway.

    With FIELDTALLY_REDIS_URL it uses that server instead. Everything ends with it; in earnest, run `project` and
    `gateway` under a process manager (see deploy/). Should the projector fail, this ends with its exit code.
    """
    chosen = settings()
    logger = set_up_logging(chosen.log_format, chosen.log_level)
    # On a terminal the gateway's lines are enough: the projector's would come between what is said to the person.
    quiet = {"LOG_LEVEL": "warning"} if sys.stderr.isatty() and chosen.log_level == "info" else {}
    with (
        told_to_end(),
        listen(chosen.http_host, chosen.http_port) as listener,
        server_url(chosen) as url,
        projector_beside(url, **quiet) as projector,
        kept_running(chosen, logger),
        _ending_with(projector),
    ):
        try:
            interrupted = serve_and_say(
                chosen, url, logger, listener,
                "Ctrl-C ends\n`fieldtally devices enrol SI-MP-07` in another terminal gives out a token",
            )  # fmt: skip
        except SystemExit as end:
            if end.code:
                raise
            interrupted = False  # told to end before it served, perhaps because the projector has ended
        return _exit_code(projector.poll(), interrupted=interrupted)


def _exit_code(projector: int | None, *, interrupted: bool) -> int:
    """Return what `up` ends with when the gateway has ended and the projector has, with that code, or has not yet."""
    if interrupted or projector in _INTERRUPTED:
        return INTERRUPTED
    if projector is None or projector in _TOLD_TO_END:
        return 0
    if projector < 0:
        raise FieldtallyError(
            f"the projector was ended by {signal.Signals(-projector).name}: run `fieldtally doctor`, then "
            "`fieldtally up` again"
        )
    note(f"the projector has ended (exit {projector}) and nothing would be counted any more: it says why above")
    return projector


@contextmanager
def _ending_with(projector: subprocess.Popen[str]) -> Iterator[None]:
    """End the gateway when the projector ends first: nothing would be counted any more."""
    ending = threading.Event()

    def look() -> None:
        projector.wait()
        # Not by a signal of the system: one that comes when the gateway has just ended would cut the rest off.
        while not ending.wait(LOOK_S):
            _thread.interrupt_main(signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        ending.set()
