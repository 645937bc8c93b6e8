"""Help is complete, begins with examples, and its examples are right."""

from __future__ import annotations

import shlex

import click
import pytest
from click.testing import CliRunner

from services.cli.__main__ import COMMANDS, fieldtally
from tests.services.cli.conftest import Cli, assert_refused


def _commands() -> dict[str, click.Command]:
    context = click.Context(fieldtally)
    found: dict[str, click.Command] = {"": fieldtally}
    for name in COMMANDS:
        command = fieldtally.get_command(context, name)
        assert command
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": command.commands[inner] for inner in command.commands}
    return found


ALL = _commands()
GIVEN = {
    "import": ["reports.ndjson"], "archive trim": ["--older-than", "1d"], "devices enrol": ["x", "--role", "viewer"],
    "devices rotate": ["x"], "parked requeue": ["--side", "SI", "--because", "x"], "sql": ["SELECT 1"],
}  # fmt: skip
"""What a command does not go without."""


@pytest.mark.parametrize("name", ALL)
def test_help_begins_with_examples_and_describes_every_option(cli: Cli, name: str) -> None:
    outcome = cli(*name.split(), "--help")
    assert (0, "") == (outcome.code, outcome.err)
    lines = outcome.out.splitlines()
    assert "Examples:" == lines[0]
    assert lines[1].startswith(f"  fieldtally {name}".rstrip())
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in outcome.out
            assert parameter.help


@pytest.mark.parametrize("name", [name for name, command in ALL.items() if not isinstance(command, click.Group)])
def test_the_examples_are_of_the_command_and_parse(name: str) -> None:
    command = ALL[name]
    examples: tuple[str, ...] = command.examples  # type: ignore[attr-defined]  # every command of ours has them
    assert examples
    for example in examples:
        words = shlex.split(example, comments=False)
        shell = next((at for at, word in enumerate(words) if word in "<>"), len(words))
        own = name.split()
        assert own == words[: len(own)]
        command.make_context(name, words[len(own) : shell])  # raises what it does not understand


@pytest.mark.parametrize("name", ALL)
def test_json_is_a_short_form_wherever_there_is_a_format_and_refused_beside_another(cli: Cli, name: str) -> None:
    formats = next((one.type.choices for one in ALL[name].params if "--format" in one.opts), None)  # type: ignore[attr-defined]
    shown = cli(*name.split(), "--help").out
    assert ("--json " in shown) == (formats is not None and "json" in formats)
    if formats is None:
        return
    other = formats[-1] if formats[-1] != "json" else formats[0]
    refused = cli(*name.split(), *GIVEN.get(name, []), "--json", "--format", other)
    assert_refused(refused, 2, "--json is short for --format json", f"without --format {other}")


def test_json_means_the_format_and_belongs_behind_the_command_it_is_for(cli: Cli) -> None:
    for args in (["tallies"], ["stats", "months"], ["archive", "list"]):
        assert cli(*args, "--json") == cli(*args, "--format", "json") == cli(*args, "--json", "--format", "json")
        assert isinstance(cli(*args, "--json").json, list | dict)
    assert_refused(cli("archive", "--json", "verify"), 2, "--json before verify is for", "give it behind verify")


@pytest.mark.parametrize("name", ["tallies", "replay", "stats", "sql", "events"])
def test_help_says_what_a_day_and_a_month_mean(cli: Cli, name: str) -> None:
    out = " ".join(cli(name, "--help").out.split())
    assert "A day (2024-03-14) or a month (2024-03) means its end." in out
    if name == "events":
        assert "fieldtally events --after 2024-03-13 --as-of 2024-03-14" in out
        assert "To see a day, begin after the day before it." in out


@pytest.mark.parametrize("name", ["", "parked", "schema", "devices"])
def test_a_group_alone_prints_its_help_on_stderr(cli: Cli, name: str) -> None:
    outcome = cli(*name.split())
    assert (2, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("Examples:\n")
    assert "Commands:" in outcome.err


def test_every_line_of_the_list_of_commands_is_whole() -> None:
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(fieldtally, ["--help"], terminal_width=80).output
    listed = shown.partition("Commands:")[2]
    assert "..." not in listed
    for name in COMMANDS:
        assert f"\n  {name} " in listed


def test_h_is_help(cli: Cli) -> None:
    assert cli("tallies", "--help") == cli("tallies", "-h")


def test_the_version_is_printed(cli: Cli) -> None:
    outcome = cli("--version")
    assert (0, "") == (outcome.code, outcome.err)
    assert outcome.out.startswith("fieldtally ")
