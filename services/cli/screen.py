"""The screen beside `up` and `demo`: the control room as a process of its own, and a token to look at it with."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from schemas.principals import Principal
from services.cli.server import Program, program_beside
from services.runtime.clock import monotonic, now
from services.runtime.entropy import new_token
from services.runtime.errors import UsageError
from services.runtime.serving import listen
from services.runtime.settings import Settings
from services.store.connection import connect
from services.store.principals import RedisPrincipals, token_digest

UNIT: Final = "SCREEN"
DEVICE: Final = "here"
TOKEN_FILE: Final = "screen.token"  # noqa: S105  # the name of a file
ANSWER_S: Final = 30
LOOK_S: Final = 0.05


@contextmanager
def screen_beside(chosen: Settings, url: str, **changed: str) -> Iterator[Program]:
    """Run the control room as a process of its own for as long as this lasts, with some settings changed."""
    changed = {"LOG_LEVEL": "warning", "SCREEN_PORT": str(chosen.screen_port), **changed}
    with program_beside("control-room", url, **changed) as process:
        yield process


def free_screen_port(chosen: Settings) -> int:
    """Return a port that is free; that of the settings may be another screen's, and two demos may start at once."""
    with listen(chosen.http_host, 0, "HTTP_HOST") as listener:
        port: int = listener.getsockname()[1]
    return port


def say_where(chosen: Settings, token: str, screen: Program) -> None:
    """Print the screen's address and a token for it, once it answers; nothing if it ends before."""
    until = monotonic() + ANSWER_S
    while screen.poll() is None and monotonic() < until:
        with suppress(OSError), socket.create_connection((chosen.http_host, chosen.screen_port), ANSWER_S):
            print(f"screen on {chosen.screen_address}, to log in with the viewer token {token}", flush=True)
            return
        time.sleep(LOOK_S)


async def viewer_token(chosen: Settings, url: str) -> str:
    """Return the token that this machine's own screen looks with: the one in the data folder, or a new one.

    It is kept, so that a screen that is logged in stays so when everything is started anew.

    Raises:
        UsageError: the data folder cannot be written to.

    """
    path = chosen.data_dir / TOKEN_FILE
    sides = ",".join(side.side for side in chosen.sides)
    token = _read(path)
    client = connect(url)
    try:
        principals = RedisPrincipals(client, url, chosen.prefix)
        known = await principals.find(token_digest(token)) if token else None
        if token and known and known.valid_at(now()) and (known.role, known.side) == ("viewer", sides):
            return token
        token = new_token()
        viewer = Principal(role="viewer", side=sides, unit=UNIT, device=DEVICE, enrolled=now())
        _write(path, token)
        await principals.change(lambda _: ({token_digest(token): viewer}, None))
    finally:
        await client.aclose()
    return token


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _write(path: Path, token: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
    except OSError as error:
        raise UsageError(
            f"the screen's token cannot be kept at {path}: {error.strerror}; set FIELDTALLY_DATA_DIR"
        ) from error
