"""The command line: every command, in the order in which a newcomer meets them."""

# ruff: noqa: E402  # what stands before the imports is about them

from __future__ import annotations

import signal

# Ctrl-C while a tenth of a second of imports is under way ends the program as it ends any other; `main` takes over.
_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _INTERRUPTIBLE:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from importlib import import_module
from typing import Final

import click
from click.exceptions import NoSuchCommand

from services.cli.command import Group, run
from services.runtime.signals import comes_again
from services.runtime.standard import put_in_order

COMMANDS: Final = {
    "up": "up:up",
    "demo": "demo:demo",
    "simulate": "simulate:simulate",
    "import": "imports:import_file",
    "report": "report:report",
    "project": "project:project",
    "gateway": "gateway:gateway",
    "control-room": "control_room:control_room",
    "watch": "watch:watch",
    "tallies": "tallies:tallies",
    "replay": "tallies:replay",
    "archive": "archive:archive",
    "audit": "audit:audit",
    "sql": "sql:sql",
    "rebuild": "rebuild:rebuild",
    "stats": "stats:stats",
    "events": "events:events",
    "parked": "parked:parked",
    "devices": "devices:devices",
    "schema": "schema:schema",
    "doctor": "doctor:doctor",
}
"""Where each command is: imported when it is asked for, since all of them together take half a second."""


class _Commands(Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            raise NoSuchCommand(cmd_name, possibilities=COMMANDS, ctx=ctx)
        module, _, name = COMMANDS[cmd_name].partition(":")
        found: click.Command = getattr(import_module(f"services.cli.{module}"), name)
        return found


@click.group(
    "fieldtally",
    cls=_Commands,
    examples=("demo", "import reports.ndjson", "project --until-caught-up", "tallies", "audit"),
)
@click.version_option(package_name="fieldtally", message="fieldtally %(version)s")
def fieldtally() -> None:
    """Field reports on Redis streams, live tallies, and any figure rebuilt from the log.

    Settings come from the environment (FIELDTALLY_REDIS_URL and others, see README.md). Without FIELDTALLY_REDIS_URL an
    embedded Valkey serves. Exit codes: 0 done or equal, 1 differences found, 2 usage, 3 cannot reach Redis, 4 log
    damaged or incomplete, 130 interrupted.
    """


def main() -> None:
    """Run the command line and leave with its exit code."""
    if _INTERRUPTIBLE:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        comes_again(signal.SIGINT, signal.default_int_handler, KeyboardInterrupt)
    put_in_order()
    sys.exit(run(fieldtally, sys.argv[1:]))


if __name__ == "__main__":
    main()
