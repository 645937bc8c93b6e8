"""How every command looks: examples first in its help, settings read once, errors in one line, an exit code."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import click

from services.runtime.errors import FieldtallyError
from services.runtime.settings import Settings, read_settings, unknown_settings
from services.runtime.signals import run_loop

Result = TypeVar("Result")

INTERRUPTED: Final = 130
ONLY_READ: Final = "nothing was changed; run it again for the whole"
"""What stands when a command that only reads is interrupted."""


class _InterruptedError(KeyboardInterrupt):
    """An interruption of a command, with what it says then."""


class _WithExamples(click.Command):
    """A command whose help begins with examples, and that says when interrupted what stands."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), stands: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stands = stands
        self.context_settings = {"help_option_names": ["-h", "--help"]}
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; what is wrong with them is said to be wrong with this command, not with all of them."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an interruption knows which command it came to: the innermost."""
        try:
            return super().invoke(ctx)
        except _InterruptedError:
            raise
        except (click.ClickException, FieldtallyError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if not _of_interruption(error):
                raise
            raise _InterruptedError(self.stands) from error

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, then the rest."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"  fieldtally {example}\n")
        formatter.write("\n")
        super().format_help(ctx, formatter)


class Group(_WithExamples, click.Group):
    """A group that lists its commands as they were added, with examples first."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of addition."""
        return list(self.commands)


class FileName(click.ParamType[str]):
    """The name of a file, for an option or an argument; the empty one would be the current folder."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it, or say that there is none."""
        if not value:
            self.fail("'' is no name of a file.", param, ctx)
        return str(value)


class Whole(click.IntRange):
    """A whole number, for an option."""

    name = "whole number"

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()


class Number(click.FloatRange):
    """A number, for an option; neither infinite nor `nan`, which no range keeps out."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or say what is wrong with it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return number


def command(name: str, *examples: str, stands: str = "") -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command of that name; its docstring is its help, and the first sentence of it the line in a list.

    `stands` says what has become of its work when it is interrupted; not for those that end so anyway.
    """
    return click.command(name, cls=_WithExamples, examples=examples, stands=stands)


def group(name: str, *examples: str, alone: bool = False, stands: str = "") -> Callable[[Callable[..., Any]], Group]:
    """Declare a group of commands; its docstring is its help. With `alone` it also does something without one."""
    return click.group(name, cls=Group, examples=examples, invoke_without_command=alone, stands=stands)


def settings() -> Settings:
    """Read the settings from the environment: the one place of the command line that does."""
    return read_settings(os.environ)


def misspelt_settings() -> list[str]:
    """Return the variables of the environment that look like settings and are none."""
    return unknown_settings(os.environ)


def run_async(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work to its end; Ctrl-C ends it with KeyboardInterrupt, after its own cleaning up."""
    return run_loop(work)


def run(commands: click.Group, args: list[str]) -> int:
    """Run the command line; return its exit code, after one line on stderr if something was wrong."""
    try:
        code = _invoke(commands, args)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        return _say(error.format_message(), 2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "fieldtally"
        return _say(f"{where}: {' '.join(error.format_message().split())} (see `{where} --help`)", 2)
    except click.ClickException as error:
        return _say(f"fieldtally: {error.format_message()}", 2)
    except FieldtallyError as error:
        return _say(f"fieldtally: {error}", error.exit_code)
    except KeyboardInterrupt as error:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # ends the line of the terminal's ^C
        try:
            sys.stdout.flush()
        except OSError:  # Ctrl-C has ended the reader of our output too
            _forget_output()
        if isinstance(error, _InterruptedError) and str(error):
            return _say(f"interrupted: {error}", INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (`| head`): nothing is wrong
        _forget_output()
        return 0
    except OSError as error:  # what a command reads or writes by name it has reported by name
        _forget_output()
        return _say(f"fieldtally: cannot read the input or write the output: {error.strerror or error}", 2)
    except Exception as error:  # a user never sees a traceback
        if _debugging():
            raise
        kind = type(error).__name__
        return _say(f"fieldtally: a fault in Fieldtally itself ({kind}); FIELDTALLY_LOG_LEVEL=debug shows where", 70)
    return code if isinstance(code, int) else 0


def _of_interruption(error: BaseException | None) -> bool:
    """Say whether an error came of Ctrl-C: between two steps of a library it may come out as a fault of that."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _debugging() -> bool:
    try:
        return settings().log_level == "debug"
    except FieldtallyError:
        return False


def _invoke(commands: click.Group, args: list[str]) -> object:
    # Not `commands.main`, which makes of a broken pipe that something was wrong.
    try:
        with commands.make_context("fieldtally", args) as context:
            return commands.invoke(context)
    except click.exceptions.Exit as error:  # `--help` and `--version`
        return error.exit_code


def _forget_output() -> None:
    """Keep the interpreter from flushing at exit what cannot be written."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.__stdout__.fileno() if sys.__stdout__ else 1)
    os.close(null)


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
