"""Log lines have only the fields that are allowed, so no payload can be in them; off a terminal they are JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given as examples
from hypothesis import strategies as st

from services.runtime.logging import ALLOWED_FIELDS, keep_allowed_fields, set_up_logging
from services.runtime.settings import LogFormat, LogLevel
from tests import given

ROOT = Path(__file__).parents[3]
NAME = "Janez Novak"


class Terminal(io.StringIO):
    """A stderr that is one."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Callable[[io.StringIO], io.StringIO]:
    """Put another stderr in the place of the real one."""

    def put(other: io.StringIO) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", other)
        return other

    return put


def lines(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_off_a_terminal_a_line_is_json(stderr: Callable[[io.StringIO], io.StringIO]) -> None:
    said = stderr(io.StringIO())
    set_up_logging("auto", "info").info("batch_applied", side="SI", entries=3, lag=0)
    (line,) = lines(said)
    assert timedelta(0) == datetime.fromisoformat(line.pop("timestamp")).utcoffset()
    assert {"event": "batch_applied", "level": "info", "side": "SI", "entries": 3, "lag": 0} == line


@pytest.mark.parametrize(
    ("log_format", "terminal", "is_json"),
    [
        ("auto", False, True), ("auto", True, False), ("json", True, True), ("json", False, True),
        ("console", True, False), ("console", False, False),
    ],
)  # fmt: skip
def test_the_format_is_as_set_or_as_fits_stderr(
    stderr: Callable[[io.StringIO], io.StringIO], log_format: LogFormat, *, terminal: bool, is_json: bool
) -> None:
    said = stderr(Terminal() if terminal else io.StringIO())
    set_up_logging(log_format, "info").info("batch_applied", side="SI")
    assert is_json == said.getvalue().startswith("{")
    assert "batch_applied" in said.getvalue()
    assert (terminal and not is_json) == ("\x1b" in said.getvalue())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_field_that_is_not_allowed_never_comes_out(
    stderr: Callable[[io.StringIO], io.StringIO], log_format: LogFormat
) -> None:
    said = stderr(io.StringIO())
    logger = set_up_logging(log_format, "debug").bind(name=NAME, side="SI")
    logger.warning("entry_parked", raw=given.apprehension(), person=NAME, data={"name": NAME}, position="5-0")
    assert "5-0" in said.getvalue()
    for word in (NAME, "person", "raw", "data", "SYR"):
        assert word not in said.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_of_an_exception_only_its_kind_comes_out(
    stderr: Callable[[io.StringIO], io.StringIO], log_format: LogFormat
) -> None:
    said = stderr(io.StringIO())
    logger = set_up_logging(log_format, "info")
    error = ValueError(NAME)
    logger.error("batch_failed", exc_info=error)
    try:
        raise error
    except ValueError:
        logger.exception("batch_failed")
    assert NAME not in said.getvalue()
    assert "Traceback" not in said.getvalue()
    assert 2 == len(said.getvalue().splitlines())
    assert "ValueError" in said.getvalue()


LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")


@pytest.mark.parametrize("level", LEVELS)
def test_what_lies_below_the_level_is_not_said(stderr: Callable[[io.StringIO], io.StringIO], level: LogLevel) -> None:
    said = stderr(io.StringIO())
    logger = set_up_logging("json", level)
    for name in LEVELS:
        getattr(logger, name)("batch_applied")
    assert list(LEVELS[LEVELS.index(level) :]) == [line["level"] for line in lines(said)]


@examples(st.dictionaries(st.text() | st.sampled_from(sorted(ALLOWED_FIELDS)), st.text() | st.binary()))
def test_the_allowed_fields_pass_unchanged_and_no_other(line: dict[str, Any]) -> None:
    kept = keep_allowed_fields(None, "info", dict(line))
    assert {name: value for name, value in line.items() if name in ALLOWED_FIELDS} == kept


def test_no_allowed_field_is_a_name_of_content() -> None:
    content = {"id", "source", "subject", "time", "data", "persons", "citizenship", "section", "case", "raw", "by"}
    assert set() == content & ALLOWED_FIELDS


SAYS_MUCH = """
from services.runtime.logging import set_up_logging
from services.runtime.standard import put_in_order
put_in_order()
logger = set_up_logging("json", "info")
for number in range(5_000):
    logger.info("requests_answered", requests=number)
"""


def test_lines_of_several_processes_stay_whole() -> None:
    """The gateway, the projector and its sides share one stderr."""
    reading, writing = os.pipe()
    processes = [subprocess.Popen([sys.executable, "-c", SAYS_MUCH], cwd=ROOT, stderr=writing) for _ in range(3)]
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        numbers = [json.loads(line)["requests"] for line in said]
    assert [0, 0, 0] == [process.wait(20) for process in processes]
    assert sorted([*range(5_000)] * 3) == sorted(numbers)
