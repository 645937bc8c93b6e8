"""The command line: every command, in the order in which a newcomer meets them."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from click.exceptions import NoSuchCommand

from services.cli.command import Group, run

COMMANDS: Final = {
    "demo": "demo:demo",
    "simulate": "simulate:simulate",
    "import": "imports:import_file",
    "project": "project:project",
    "tallies": "tallies:tallies",
    "replay": "tallies:replay",
    "audit": "audit:audit",
    "events": "events:events",
    "parked": "parked:parked",
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
    if sys.stdout is None:  # started with stdout closed: print to nowhere
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open until the end
    sys.exit(run(fieldtally, sys.argv[1:]))


if __name__ == "__main__":
    main()
