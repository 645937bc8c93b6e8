"""`up`: everything in one go, for a first look and for one machine: server, projector, gateway, screen."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from services.cli.command import INTERRUPTED, command, run_async, settings
from services.cli.gateway import serve_and_say, told_to_end
from services.cli.output import note
from services.cli.screen import say_where, screen_beside, viewer_token
from services.cli.server import Program, kept_running, program_beside, server_url
from services.runtime.errors import FieldtallyError, UnreachableError
from services.runtime.logging import set_up_logging
from services.runtime.serving import listen

LOOK_S: Final = 0.1
START_AGAIN_S: Final = 0.5

_INTERRUPTED: Final = (INTERRUPTED, -signal.SIGINT)
_TOLD_TO_END: Final = (0, 128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGHUP, *_INTERRUPTED)
"""What a projector ends with that was told to. A signal to a whole group reaches it before us, or after."""


@command("up", "up")
def up() -> int:
    """Run everything on this machine in one go.

    That is the embedded server, or that of FIELDTALLY_REDIS_URL, the projector, the gateway and the screen. The
    screen's address is printed with a viewer token, which stays the same as long as the data folder is there.
    Everything ends with it; in earnest, run `project`, `gateway` and `control-room` under a process manager (see
    deploy/). Should one of them fail, this ends with its exit code.
    """
    chosen = settings()
    logger = set_up_logging(chosen.log_format, chosen.log_level)
    # On a terminal the gateway's lines are enough: the projector's would come between what is said to the person.
    quiet = {"LOG_LEVEL": "warning"} if sys.stderr.isatty() and chosen.log_level == "info" else {}
    # The control room takes its port itself, later: whoever else has it now would be called our screen.
    listen(chosen.http_host, chosen.screen_port, "SCREEN_PORT").close()
    with (
        told_to_end(),
        listen(chosen.http_host, chosen.http_port, "HTTP_PORT") as listener,
        server_url(chosen) as url,
        program_beside("project", url, **quiet) as projector,
        screen_beside(chosen, url) as screen,
        kept_running(chosen, logger),
        _ending_with(projector, screen, start_again=chosen.redis_url is None),
    ):
        try:
            token = run_async(viewer_token(chosen, url))
            threading.Thread(target=say_where, args=(chosen, token, screen), daemon=True).start()
            interrupted = serve_and_say(
                chosen, url, logger, listener,
                "Ctrl-C ends\n`fieldtally devices enrol SI-MP-07` in another terminal gives out a token",
            )  # fmt: skip
        except SystemExit as end:
            if end.code:
                raise
            interrupted = False  # told to end before it served, perhaps because one beside it has ended
        ended = {"the projector": projector.poll(), "the control room": screen.poll()}
        if chosen.redis_url is None:  # who did not reach the embedded server is started again, and no reason to end
            ended = {name: None if code == UnreachableError.exit_code else code for name, code in ended.items()}
        return _exit_code(ended, interrupted=interrupted)


def _exit_code(ended: Mapping[str, int | None], *, interrupted: bool) -> int:
    """Return what `up` ends with when the gateway has ended, and those beside it have with these codes, or not yet."""
    if interrupted or any(code in _INTERRUPTED for code in ended.values()):
        return INTERRUPTED
    for name, code in ended.items():
        if code is None or code in _TOLD_TO_END:
            continue
        if code < 0:
            raise FieldtallyError(
                f"{name} was ended by {signal.Signals(-code).name}: run `fieldtally doctor`, then `fieldtally up` again"
            )
        note(f"{name} has ended (exit {code}), and so does everything: it says why above")
        return code
    return 0


@contextmanager
def _ending_with(*programs: Program, start_again: bool) -> Iterator[None]:
    """End the gateway when one of these ends first: nothing would be counted any more, or nobody would see it.

    With `start_again` one that did not reach the server at its start is started again: the server was just dying, and
    is being started again too.
    """
    ending = threading.Event()

    def look(program: Program) -> None:
        while program.wait() == UnreachableError.exit_code and start_again:
            if ending.wait(START_AGAIN_S):
                return
            program.start_again()
        # Not by a signal of the system: one that comes when the gateway has just ended would cut the rest off.
        while not ending.wait(LOOK_S):
            _thread.interrupt_main(signal.SIGTERM)

    for program in programs:
        threading.Thread(target=look, args=(program,), daemon=True).start()
    try:
        yield
    finally:
        ending.set()
