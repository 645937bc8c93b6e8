"""Runs one piece of work for each side in a process of its own: sides share nothing, and Python runs on one core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar, cast

from services.runtime.errors import FieldtallyError
from services.runtime.signals import comes_again

Result = TypeVar("Result")

Advance: TypeAlias = Callable[[int], None]
"""Says that so many more entries are done."""

Show: TypeAlias = Callable[[], AbstractContextManager[Advance]]
"""Begins to show progress; entered when the processes run, since a bar draws in a thread of its own."""

LOOK_S: Final = 0.1

_HANDED_ON: Final = (signal.SIGINT, signal.SIGTERM)

# Forked, not spawned: it costs no start, and a child holds on to the embedded server that its parent uses. The parent
# must not have started a thread or an event loop by then.
_processes: Final = multiprocessing.get_context("fork")


def unseen() -> AbstractContextManager[Advance]:
    """Show nothing."""
    return nullcontext(lambda _: None)


def run_forked(works: Mapping[str, Callable[[Advance], Result]], show: Show = unseen) -> list[Result]:
    """Run every work and return the results in order; a single one runs here, in this process.

    SIGINT and SIGTERM are handed on to all. The first error ends the others and is raised; KeyboardInterrupt is raised
    if a work ended by it.
    """
    if len(works) == 1:
        with show() as advance:
            return [work(advance) for work in works.values()]
    children: list[_Child] = []

    def hand_on(number: int, _frame: FrameType | None = None) -> None:
        for child in children:
            child.signal(number)

    before = {number: signal.signal(number, hand_on) for number in _HANDED_ON}
    try:
        # Held back until every child is there and has handlers of its own: a child begins with a copy of ours, which
        # would take a signal for it and do nothing.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDED_ON)
        try:
            for name, work in works.items():
                children.append(_Child(name, work))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
        with show() as advance:
            seen = 0
            while running := [child for child in children if not child.answered]:
                for connection in wait([child.answer for child in running], LOOK_S):
                    next(child for child in running if child.answer is connection).take_answer()
                now = sum(child.done.value for child in children)
                advance(now - seen)
                seen = now
                if any(child.error for child in children):
                    hand_on(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in children:
            child.end()
    # What went wrong comes before what was ended because of it.
    for error in sorted((child.error for child in children if child.error), key=lambda it: isinstance(it, SystemExit)):
        raise error
    return [cast("Result", child.result) for child in children]


class _Child:
    """A work in its process, and what it answers at its end."""

    def __init__(self, name: str, work: Callable[[Advance], Any]) -> None:
        # Without a lock: there is one writer, and a child that is killed while it holds one would hold it for ever.
        self.done: Any = _processes.RawValue("Q", 0)
        self.answered = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._told_to_end = False
        self.answer, tell = _processes.Pipe(duplex=False)
        self.process = _processes.Process(target=_run, args=(work, self.done, tell), name=name)
        self.process.start()
        tell.close()  # so that the child's end closes when the child ends, however it ends

    def take_answer(self) -> None:
        self.answered = True
        try:
            self.result, self.error = self.answer.recv()
        except (EOFError, OSError):  # before its answer, or in the middle of it
            self.process.join()
            self.error = self._untimely_end()

    def signal(self, number: int) -> None:
        if not self.answered and self.process.pid is not None:
            self._told_to_end |= number == signal.SIGTERM
            os.kill(self.process.pid, number)  # not joined yet, so the number is still this child's

    def end(self) -> None:
        """Wait until it has ended; one that has not answered is not waited for but killed."""
        if not self.answered:
            self.process.kill()
        self.process.join()

    def _untimely_end(self) -> BaseException:
        code = self.process.exitcode or 0
        if self._told_to_end and code == -signal.SIGTERM:
            return SystemExit(128 + signal.SIGTERM)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else "has ended without a word"
        return FieldtallyError(f"the process of side {self.process.name} {how}: start it again")


def _run(work: Callable[[Advance], Any], done: Any, tell: Connection) -> None:
    signal.signal(signal.SIGINT, _interrupt_once)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    comes_again(signal.SIGINT, _interrupt_once, KeyboardInterrupt)
    # Started while signals are still held back, and so born deaf to them: one must reach the main thread, or a wait
    # there is not cut short.
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def advance(entries: int) -> None:
        done.value += entries

    answer: tuple[Any, BaseException | None]
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
            answer = (work(advance), None)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except (FieldtallyError, KeyboardInterrupt) as error:
        answer = (None, error)
    tell.send(answer)
    tell.close()
    sys.stdout.flush()
    os._exit(0)  # what the parent opened is the parent's to close


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """A terminal's Ctrl-C reaches every process, and the parent hands it on besides: the second must not cut us off."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
