"""Log lines: for people on a terminal, else JSON; one line per batch or request, and only fields that are allowed.

An allow-list, not a deny-list: a field that is not named here never reaches a log, so no payload can.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from services.runtime.settings import LogFormat, LogLevel

ALLOWED_FIELDS: Final = frozenset(
    {
        "event", "level", "timestamp", "side", "sides", "position", "entries", "applied", "replaced", "duplicate",
        "superseded", "parked", "lag", "seconds", "wait_s", "attempt", "reason", "next_step", "generation", "server",
        "version", "cells", "digest", "logger", "requests", "recorded", "conflict", "rejected", "code", "status",
    }
)  # fmt: skip


def set_up_logging(log_format: LogFormat, level: LogLevel) -> FilteringBoundLogger:
    """Set up logging to stderr for this process and return its logger."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    threshold = getattr(logging, level.upper())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            keep_allowed_fields,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
            if console
            else structlog.processors.JSONRenderer(_as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        # In one write, its end included: several processes share stderr, and a line must not end in another's.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Bound, or every line would make a logger of its own first.
    return structlog.get_logger().bind()  # type: ignore[no-any-return]  # structlog types it as Any


def _as_json(line: EventDict, **_: Any) -> str:
    return msgspec.json.encode(line, order="sorted", enc_hook=str).decode()


def keep_allowed_fields(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Drop every field that is not on the allow-list; exceptions become their class name."""
    error: Any = line.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        line["reason"] = type(error).__name__
    return {name: value for name, value in line.items() if name in ALLOWED_FIELDS}
