"""`schema export`: what other programs may rely on, as documents that their tools read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from schemas.export import event_schema
from services.cli.command import FileName, command, group, settings
from services.cli.output import note
from services.gateway.openapi import asyncapi_bytes, openapi_bytes
from services.runtime.errors import UsageError


def _events() -> bytes:
    return f"{event_schema()}\n".encode()


def _openapi() -> bytes:
    return openapi_bytes([side.side for side in settings().sides])


def _asyncapi() -> bytes:
    given = settings()
    return asyncapi_bytes([side.side for side in given.sides], given.prefix)


DOCUMENTS: Final[dict[str, Callable[[], bytes]]] = {"events": _events, "openapi": _openapi, "asyncapi": _asyncapi}


@group("schema", "schema export")
def schema() -> None:
    """Describe events, gateway and streams for other programs."""


@command(
    "export",
    "schema export --out fieldtally-events.schema.json",
    "schema export openapi > openapi.json",
    "schema export asyncapi > asyncapi.json",
)
@click.argument("document", type=click.Choice(list(DOCUMENTS)), default="events")
@click.option("--out", metavar="FILE", type=FileName(), help="Write it there instead of to stdout.")
def export(document: str, out: str | None) -> None:
    """Print a description of what other programs may rely on.

    `events`, which it is if none is named, is one JSON Schema (2020-12) that every event of every type satisfies.
    `openapi` describes the gateway (OpenAPI 3.1) and `asyncapi` the streams on Redis (AsyncAPI 3.0), with the sides and
    the prefix of the settings; the gateway serves both, byte for byte, as /openapi.json and /asyncapi.json.
    """
    written = DOCUMENTS[document]()
    if out is None:
        sys.stdout.write(written.decode())
        return
    try:
        Path(out).write_bytes(written)
    except OSError as error:
        raise UsageError(f"--out {out!r}: {error.strerror or 'cannot be written'}") from error
    note(f"wrote {out}")


schema.add_command(export)
