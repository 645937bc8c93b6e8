"""`schema export`: the event types as JSON Schema, for developers of patrol apps."""

from __future__ import annotations

from pathlib import Path

import click

from schemas.export import event_schema
from services.cli.command import command, group
from services.cli.output import note
from services.runtime.errors import UsageError


@group("schema", "schema export")
def schema() -> None:
    """The event types, for other programs."""


@command("export", "schema export", "schema export --out fieldtally-events.schema.json")
@click.option("--out", metavar="FILE", help="Write it there instead of to stdout.")
def export(out: str | None) -> None:
    """Print the JSON Schema of the events.

    It is one schema (2020-12) that every event of every type satisfies.
    """
    text = event_schema()
    if out is None:
        print(text)
        return
    try:
        Path(out).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out!r}: {error.strerror or 'cannot be written'}") from error
    note(f"wrote {out}")


schema.add_command(export)
