"""Ctrl-C: one line on stderr says what stands and how to go on, wherever the work is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from services.cli import server
from tests.services.cli.conftest import Cli


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("archive",), "whole segments stand; `fieldtally archive` goes on after them"),
        (("archive", "trim", "--older-than", "0h"), "`fieldtally archive trim` goes on from there"),
        (("audit",), "nothing was changed"),
        (("replay",), "nothing was changed"),
        (("tallies",), "nothing was changed"),
        (("stats",), "nothing was changed"),
        (("sql", "SELECT 1"), "nothing was changed"),
        (("rebuild",), "`fieldtally rebuild` goes on where it was"),
        (
            ("parked", "requeue", "--side", "SI", "--reason", "conflict", "--because", "x"),
            "each entry is put back once",
        ),
        (("import", "{file}"), "import the file again"),
        (("events",), ""),  # Ctrl-C is how it ends
        (("parked", "list"), ""),
    ],
)
def test_an_interruption_says_what_stands(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "connect", interrupt)
    (tmp_path / "file").write_bytes(b"")
    outcome = cli(*(arg.format(file=tmp_path / "file") for arg in args), DATA_DIR=str(tmp_path))
    assert (130, "") == (outcome.code, outcome.out)
    if said:
        assert outcome.err.startswith("interrupted: ")
        assert said in outcome.err
    assert (1 if said else 0) == len(outcome.err.splitlines())


def test_an_interruption_that_comes_out_as_a_fault_of_a_library_is_one(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: Any) -> NoReturn:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("generator didn't yield")

    monkeypatch.setattr(server, "connect", interrupt)
    outcome = cli("replay", DATA_DIR=str(tmp_path))
    assert (130, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("interrupted: nothing was changed")
