"""Signals that end a program: none is lost, and none cuts an event loop off half-way.

The handler of such a signal raises an exception between any two steps of what runs then. In a loop that may be while it
is made or closed, where Python prints a traceback. So `run_loop` has it cancel the work, and calls its handler after
that. In the finalizer of an object the exception is swallowed. So `comes_again` sends the signal once more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, Self, TypeAlias, TypeVar

from services.runtime.ending import end

Result = TypeVar("Result")

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a program from outside: a person, a process manager, a terminal that closes."""

_AGAIN_S: Final = 0.01

_Handler: TypeAlias = Callable[[int, FrameType | None], Any]


def run_loop(
    work: Coroutine[Any, Any, Result], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> Result:
    """Run work to its end in a loop of its own, and return its result.

    A signal that has a handler of ours cancels it; when it has cleaned up, and the loop is closed, the handler is
    called. A person's second Ctrl-C does not wait for that.
    """
    try:
        with _Held() as held, asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_interruptible(work, held))
    finally:
        work.close()  # for the case that it was not begun


def comes_again(number: int, handler: _Handler, raises: type[BaseException]) -> None:
    """From now on, send this process a signal again whose exception, raised by its handler, has been swallowed."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not raises:
            before(unraisable)
            return
        signal.signal(number, handler)
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = hook


def handlers() -> dict[int, _Handler]:
    """Return those of our own for the signals that end a program; only the main thread has any."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}


class _Held:
    """Holds signals back for as long as this lasts, and says that one has come."""

    def __init__(self) -> None:
        self.cancel: Callable[[], object] = lambda: None
        self.numbers: list[int] = []
        self._before = handlers()
        self._over = False

    def __enter__(self) -> Self:
        for number in self._before:
            signal.signal(number, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number in self.numbers:
            self._before[number](number, None)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        # One with another handler may come twice by itself: from the terminal, and handed on (see `forked.py`).
        if self._over or (number in self.numbers and handler is signal.default_int_handler):
            handler(number, frame)
            return
        self.numbers.append(number)
        if len(self.numbers) == 1:  # a second cancellation would cut the cleaning up off
            self.cancel()


async def _interruptible(work: Coroutine[Any, Any, Result], held: _Held) -> Result:
    # In a task of its own, whose end can be waited for.
    task = asyncio.ensure_future(work)
    us = asyncio.current_task()
    assert us  # noqa: S101  # this is a coroutine
    loop = asyncio.get_running_loop()
    held.cancel = lambda: loop.call_soon_threadsafe(us.cancel)
    if held.numbers:  # before the loop ran
        us.cancel()
    try:
        await asyncio.wait([task])
    finally:
        held.cancel = lambda: None
        try:
            await end(task)
            # What others have begun. A closing loop cancels it only once, which may be lost, and then waits for ever.
            await end(*asyncio.all_tasks() - {us})
        finally:
            if task.done() and not task.cancelled():
                task.exception()  # looked at, should a second Ctrl-C have cut the end off
    return task.result()
