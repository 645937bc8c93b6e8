"""`project`: run the projector."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import click
from msgspec.structs import replace

from services.cli.command import command, run_async, settings
from services.cli.output import many, note, progress
from services.cli.server import kept_running, server_url, side_stores
from services.projector.processes import project as run_projector
from services.runtime.forked import Advance, unseen
from services.runtime.logging import set_up_logging
from services.runtime.settings import Settings


@command("project", "project", "project --until-caught-up")
@click.option("--until-caught-up", is_flag=True, help="Stop at what is the log's end now, with exit code 0.")
def project(*, until_caught_up: bool) -> None:
    """Keep the live tallies current, as reports come in.

    It follows the log of every side from where the live tallies stand. Several may run at once; each
    report counts once all the same. Ctrl-C stops it between two batches.
    """
    chosen = settings()
    with server_url(chosen) as url:
        kept = partial(_kept_running, chosen)
        chosen = replace(chosen, redis_url=url)
        behind = run_async(_entries_behind(chosen))
        if not (until_caught_up and sys.stderr.isatty()):
            run_projector(chosen, url, until_caught_up=until_caught_up, show=kept)
            return
        quiet = replace(chosen, log_level="warning")  # the bar says what the lines would
        run_projector(quiet, url, until_caught_up=True, show=lambda: progress("projecting", behind))
        note(f"caught up: {many(behind, 'entry', 'entries')}")


@contextmanager
def _kept_running(chosen: Settings) -> Iterator[Advance]:
    """Look after the embedded server, and show nothing: entered when the sides' processes run, since a thread looks."""
    logger = set_up_logging(chosen.log_format, chosen.log_level)
    with kept_running(chosen, logger), unseen() as advance:
        yield advance


async def _entries_behind(chosen: Settings) -> int:
    """Return how many entries the tallies lack; what is wrong with the server is said here, once for all sides."""
    behind = 0
    async with side_stores(chosen) as stores:
        for store in stores:
            stored = await store.store.load()
            behind += (await store.log.extent()).appended - (stored.checkpoint.entries if stored.checkpoint else 0)
    return behind
