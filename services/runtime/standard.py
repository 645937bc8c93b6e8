"""Standard input, output and error as they ought to be, whatever a program was started with."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, Final

_ERROR: Final = 2


def put_in_order() -> None:
    """Make the three of them usable: what is closed leads nowhere, what cannot be said on stderr is let go.

    A closed descriptor would be given to the next file or socket that is opened, and get what is meant for people. And
    a full disk under a log of lines must not end what the lines are about: the reports in the log matter more.
    """
    for number in (0, 1, _ERROR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # open until the end
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # open until the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal that has no letters like č
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    sys.stderr = io.TextIOWrapper(_Lossy(), encoding=encoding, errors="backslashreplace", write_through=True)


class _Lossy(io.RawIOBase):
    """Standard error that never fails."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(_ERROR)

    def fileno(self) -> int:
        return _ERROR

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        with suppress(OSError):
            while rest:
                rest = rest[os.write(_ERROR, rest) :]
        return size
