"""The errors a user may meet: each names the thing, the place and the next step, and knows its exit code.

The exit codes are those of the command line: 2 usage, 3 cannot reach Redis, 4 log damaged or incomplete.
"""

from __future__ import annotations

from typing import ClassVar


class FieldtallyError(Exception):
    """Something a user can act on; its text is one line and carries no payload."""

    exit_code: ClassVar[int] = 1


class UsageError(FieldtallyError):
    """An option, a setting or a file is wrong. The caller changes it and tries again."""

    exit_code = 2


class UnreachableError(FieldtallyError):
    """The server does not answer, or refuses us. The caller may wait and try again."""

    exit_code = 3


class DamagedLogError(FieldtallyError):
    """The log has lost entries, or derived state no longer fits it. Waiting does not help; a person must look."""

    exit_code = 4


class UnsoundTalliesError(DamagedLogError):
    """Derived state is damaged; the log may be whole. A person has it made anew: `fieldtally rebuild --swap`."""


class FaultError(FieldtallyError):
    """Fieldtally itself is wrong. Nothing was recorded; its makers must look."""

    exit_code = 70
