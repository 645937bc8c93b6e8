"""A signal that ends a program ends its loop as a whole, whenever it comes, and is never lost."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
import uvloop

from services.runtime.signals import comes_again, run_loop
from tests.waiting import wait_for

FACTORIES = [asyncio.new_event_loop, uvloop.new_event_loop]


@contextmanager
def handled(number: signal.Signals, handler: Callable[..., Any]) -> Iterator[None]:
    before = signal.signal(number, handler)
    hook = sys.unraisablehook
    try:
        yield
    finally:
        signal.signal(number, before)
        sys.unraisablehook = hook


def leave(*_: object) -> NoReturn:
    raise SystemExit(7)


class Work:
    """Waits until it is ended, and then cleans up for a while."""

    def __init__(self) -> None:
        self.begun = self.cleaned = False

    async def run(self, then: Callable[[], None] = lambda: None) -> None:
        """Wait; `then` is called when it has begun to."""
        self.begun = True
        asyncio.get_running_loop().call_soon(then)
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            self.cleaned = True


@pytest.fixture(autouse=True)
def _nothing_is_said() -> Iterator[None]:
    """No warning of a coroutine that was never awaited, and nothing that Python had to ignore."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("factory", FACTORIES)
def test_it_is_told_to_the_work_and_then_does_what_it_does(factory: Any) -> None:
    work = Work()
    with handled(signal.SIGTERM, leave), pytest.raises(SystemExit) as ended:
        run_loop(work.run(lambda: signal.raise_signal(signal.SIGTERM)), factory)
    assert 7 == ended.value.code
    assert work.cleaned


@pytest.mark.parametrize("factory", FACTORIES)
def test_one_that_comes_while_the_loop_is_made_keeps_the_work_from_its_beginning(factory: Any) -> None:
    def struck() -> asyncio.AbstractEventLoop:
        signal.raise_signal(signal.SIGINT)
        loop: asyncio.AbstractEventLoop = factory()
        return loop

    work = Work()
    with handled(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        run_loop(work.run(), struck)
    assert not work.begun or work.cleaned


def test_a_loop_that_cannot_be_made_leaves_no_work_behind() -> None:
    def failing() -> NoReturn:
        raise OSError(24, "Too many open files")

    work = Work()
    with pytest.raises(OSError, match="Too many"):
        run_loop(work.run(), failing)
    assert not work.begun


def test_one_that_comes_while_the_loop_is_closed_waits_for_that() -> None:
    closed = []

    class Struck(asyncio.SelectorEventLoop):
        def close(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            super().close()
            closed.append(self.is_closed())

    async def work() -> None:
        return

    with handled(signal.SIGTERM, leave), pytest.raises(SystemExit):
        run_loop(work(), Struck)
    assert [True] == closed


def test_a_second_one_does_not_cut_the_cleaning_up_off() -> None:
    cleaned = []

    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            cleaned.append(True)

    with handled(signal.SIGTERM, leave), pytest.raises(SystemExit):
        run_loop(work())
    assert [True] == cleaned


def test_a_person_s_second_ctrl_c_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    with handled(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        run_loop(work())
    gc.collect()
    assert [] == caplog.records  # asyncio's words of an exception that nobody took


def test_what_the_work_has_begun_is_ended_even_if_it_loses_a_cancellation() -> None:
    lost = []

    async def begun() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.append(True)
        await asyncio.Event().wait()

    async def work() -> None:
        tasks.append(asyncio.create_task(begun()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    run_loop(work())
    assert [True] == lost
    assert tasks[0].cancelled()


def test_handlers_are_put_back_and_ignored_ones_stay_ignored() -> None:
    async def work() -> int:
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not leave
        return 5

    with handled(signal.SIGTERM, leave), handled(signal.SIGHUP, signal.SIG_IGN):  # type: ignore[arg-type]
        assert 5 == run_loop(work())
        assert signal.getsignal(signal.SIGTERM) is leave
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)


def test_an_error_of_the_work_is_the_error_of_the_loop() -> None:
    async def work() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run_loop(work())


def test_one_that_a_finalizer_swallows_comes_once_more() -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def swallowed_then_waits() -> None:
        comes_again(signal.SIGTERM, once, SystemExit)
        Finalized()
        wait_for(lambda: False, what="the signal to come again")

    def once(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise SystemExit(7)

    with handled(signal.SIGTERM, once), pytest.raises(SystemExit) as ended:
        swallowed_then_waits()
    assert 7 == ended.value.code


def test_what_else_a_finalizer_raises_is_said_as_ever() -> None:
    said: list[object] = []

    class Finalized:
        def __del__(self) -> None:
            raise LookupError

    with handled(signal.SIGTERM, leave):
        sys.unraisablehook = lambda it: said.append(it.exc_type)
        comes_again(signal.SIGTERM, leave, SystemExit)
        Finalized()
    assert [LookupError] == said
