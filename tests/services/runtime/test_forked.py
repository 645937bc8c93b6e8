"""Work in a process for each side: results, errors, signals, and what becomes of a child."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from services.runtime import forked
from services.runtime.errors import DamagedLogError, FieldtallyError
from services.runtime.forked import Advance, run_forked
from tests.waiting import wait_for


def test_results_come_back_in_order() -> None:
    works = {"SI": lambda _: ("first", os.getpid()), "HR": lambda _: ("second", os.getpid())}
    (first, first_pid), (second, second_pid) = run_forked(works)
    assert ("first", "second") == (first, second)
    assert len({first_pid, second_pid, os.getpid()}) == 3


def test_one_work_needs_no_process_of_its_own() -> None:
    assert [os.getpid()] == run_forked({"SI": lambda _: os.getpid()})


def test_progress_of_all_is_added_up() -> None:
    seen: list[int] = []

    def show() -> AbstractContextManager[Advance]:
        return nullcontext(seen.append)

    def work(advance: Advance) -> None:
        for _ in range(10):
            advance(3)

    run_forked({"SI": work, "HR": work}, show)
    assert 60 == sum(seen)


def test_an_error_of_one_ends_the_other_and_keeps_its_exit_code() -> None:
    def damaged(_: Advance) -> None:
        raise DamagedLogError("the log of side SI has lost entries")

    def waits(_: Advance) -> None:
        signal.pause()

    with pytest.raises(DamagedLogError, match="has lost entries") as raised:
        run_forked({"SI": damaged, "HR": waits})
    assert 4 == raised.value.exit_code


def test_an_interruption_that_a_finalizer_swallows_comes_once_more(capfd: pytest.CaptureFixture[str]) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def work(_: Advance) -> None:
        Finalized()
        while True:
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        run_forked({"SI": work, "HR": work})
    assert "" == capfd.readouterr().err


def test_a_child_that_is_killed_is_said() -> None:
    def killed(_: Advance) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def waits(_: Advance) -> None:
        signal.pause()

    with pytest.raises(FieldtallyError, match="side SI was ended by SIGKILL"):
        run_forked({"SI": killed, "HR": waits})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_meets_a_child_at_its_very_start_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It begins with a copy of its parent's handlers, which would hand the signal on to nobody."""
    begin = forked._run

    def struck(*args: Any) -> None:
        os.kill(os.getpid(), number)
        begin(*args)

    def waits(_: Advance) -> None:
        signal.pause()

    monkeypatch.setattr(forked, "_run", struck)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else FieldtallyError):
        run_forked({"SI": waits, "HR": waits})


def test_children_end_when_their_progress_cannot_be_shown() -> None:
    """As when the terminal has gone: what is raised here must not wait for work without an end."""

    def waits(_: Advance) -> None:
        signal.pause()

    def cannot_show(_: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_forked({"SI": waits, "HR": waits}, lambda: nullcontext(cannot_show))
    assert [] == multiprocessing.active_children()


PROGRAM = textwrap.dedent("""
    import os, sys, time
    from services.runtime.forked import run_forked
    def work(_):
        os.write(1, b"%d\\n" % os.getpid())  # in one piece: the other child writes to the same pipe
        while True:
            time.sleep(0.05)
    try:
        run_forked({"SI": work, "HR": work})
    except KeyboardInterrupt:
        sys.exit(130)
""")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_child_outlives_its_parent(number: signal.Signals, code: int) -> None:
    """Whatever ends the parent: a signal that it hands on, or one that it cannot."""
    with (
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as parent,
        ExitStack() as ending,
    ):
        ending.callback(parent.kill)
        assert parent.stdout
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
        assert code == parent.wait(10)
        wait_for(lambda: not any(_runs(child) for child in children), what="the children to end")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text("ascii").rpartition(")")[2].split()[0] != "Z"
