"""`gateway`: take reports over HTTP into the log."""

from __future__ import annotations

from services.cli.command import INTERRUPTED, command, settings
from services.cli.output import note
from services.cli.server import server_url
from services.gateway.app import listen, serve
from services.runtime.logging import set_up_logging


@command("gateway", "gateway")
def gateway() -> int:
    """Take reports over HTTP into the log.

    It serves at FIELDTALLY_HTTP_HOST and FIELDTALLY_HTTP_PORT until it is stopped; `/docs` there tells the rest. Tokens
    come from `fieldtally devices enrol`. Exit code 3: the server cannot be reached at the start; later, whoever reports
    is asked to try again.
    """
    chosen = settings()
    with listen(chosen.http_host, chosen.http_port) as listener, server_url(chosen) as url:
        note(f"gateway on {chosen.http_address}, described at {chosen.http_address}/docs; Ctrl-C ends")
        interrupted = serve(chosen, url, set_up_logging(chosen.log_format, chosen.log_level), listener)
    return INTERRUPTED if interrupted else 0
