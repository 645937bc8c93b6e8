"""`up`: everything in one go, for a first look and for one machine: the server, the projector, the gateway."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

from services.cli.command import INTERRUPTED, command, settings
from services.cli.output import note
from services.cli.server import projector_beside, server_url
from services.gateway.app import listen, serve
from services.runtime.errors import FieldtallyError
from services.runtime.logging import set_up_logging


@command("up", "up")
def up() -> int:
    """Run the embedded server, the projector and the gateway.

    With FIELDTALLY_REDIS_URL it uses that server instead. Everything ends with it; in earnest, run `project` and
    `gateway` under a process manager (see deploy/).
    """
    chosen = settings()
    with (
        listen(chosen.http_host, chosen.http_port) as listener,
        server_url(chosen) as url,
        projector_beside(url) as projector,
    ):
        ending = threading.Event()
        threading.Thread(target=_stop_with, args=(projector, ending), daemon=True).start()
        note(f"gateway on {chosen.http_address}, described at {chosen.http_address}/docs")
        note("`fieldtally devices enrol SI-MP-07` in another terminal gives out a token; Ctrl-C ends")
        try:
            interrupted = serve(chosen, url, set_up_logging(chosen.log_format, chosen.log_level), listener)
        finally:
            ending.set()
        if not interrupted and projector.poll() is not None:
            raise FieldtallyError(f"the projector has ended (exit {projector.returncode}): run `fieldtally doctor`")
    return INTERRUPTED if interrupted else 0


def _stop_with(projector: subprocess.Popen[str], ending: threading.Event) -> None:
    """End this process as a process manager would if the projector ends first: nothing would be counted any more."""
    projector.wait()
    if not ending.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
