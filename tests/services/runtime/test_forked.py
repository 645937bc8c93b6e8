"""Work in a process for each side: results, errors, signals, and what becomes of a child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

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


def test_a_child_that_is_killed_is_said() -> None:
    def killed(_: Advance) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def waits(_: Advance) -> None:
        signal.pause()

    with pytest.raises(FieldtallyError, match="side SI was ended by SIGKILL"):
        run_forked({"SI": killed, "HR": waits})


PROGRAM = textwrap.dedent("""
    import os, sys, time
    from services.runtime.forked import run_forked
    def work(_):
        print(os.getpid(), flush=True)
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
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
        try:
            assert code == parent.wait(10)
        finally:
            parent.kill()
        wait_for(lambda: not any(_runs(child) for child in children), what="the children to end")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text("ascii").rpartition(")")[2].split()[0] != "Z"
