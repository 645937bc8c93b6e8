"""What people type wrong is answered with one line that names it and says what is allowed; stdout stays empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import OwnServer
from tests.services.cli.conftest import Cli, assert_refused

DIMENSIONS = "side, operation, section, coverage, day, month, year, measure, citizenship, origin"
A_DATE = "a date such as 2024-03-14"
AN_OFFSET = "a time with an offset such as 2024-03-14T12:00:00+01:00"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["tally"], ["'tally'", "Did you mean 'tallies'?", "fieldtally --help"]),
        (["parkd", "list"], ["'parkd'", "Did you mean 'parked'?"]),
        (["parked", "lst"], ["'lst'", "Did you mean 'list'?", "fieldtally parked --help"]),
        (["schema", "exprt"], ["'exprt'", "Did you mean 'export'?"]),
        (["nonsense"], ["No such command 'nonsense'"]),
        (["--nope"], ["No such option '--nope'"]),
        (["tallies", "--were", "side=SI"], ["fieldtally tallies:", "'--were'", "Did you mean", "'--where'"]),
        (["tallies", "extra"], ["unexpected extra argument (extra)", "fieldtally tallies --help"]),
        (["tallies", "--by"], ["'--by' requires an argument"]),
        (["tallies", "--as-off", "1-0"], ["No such option '--as-off'", "'--as-of'"]),
        (["events", "--as-of", "1-0", "--follow"], ["--as-of", "--follow"]),
        (["tallies", "--format", "xml"], ["'--format': 'xml'", "'table', 'json', 'ndjson', 'csv'"]),
        (["audit", "--format", "csv"], ["'--format': 'csv'", "'table', 'json'"]),
        (["import"], ["Missing argument 'FILE.ndjson'"]),
        (["import", "a", "b"], ["unexpected extra argument (b)"]),
        (["parked", "show"], ["Missing argument 'POSITION'"]),
        (["simulate", "--units", "x"], ["'--units': 'x' is not a valid whole number"]),
        (["simulate", "--units", "0"], ["'--units': 0", "x<=100000"]),
        (["simulate", "--reports", "-1"], ["'--reports': -1", "0<=x"]),
        (["simulate", "--rate", "0"], ["'--rate': 0.0", "x>0"]),
        (["simulate", "--rate", "nan"], ["'--rate': 'nan' is not a valid number"]),
        (["simulate", "--rate", "inf"], ["'--rate': 'inf' is not a valid number"]),
        (["simulate", "--offline", "2"], ["'--offline': 2.0", "0<=x<=1"]),
        (["simulate", "--duplicates", "some"], ["'--duplicates': 'some' is not a valid number"]),
        (["simulate", "--seed", "1.5"], ["'--seed': '1.5' is not a valid whole number"]),
        (["simulate", "--rate", "5", "--out", "x"], ["--rate is for reports to the log"]),
        (["demo", "--seconds", "nan"], ["'--seconds': 'nan' is not a valid number"]),
        (["events", "--limit", "0"], ["'--limit': 0", "x>=1"]),
        (["events", "--side", "si"], ["no side 'si'", "SI, HR"]),
        (["parked", "show", "1-0", "--side", "XX"], ["no side 'XX'", "SI, HR"]),
        (["parked", "show", "nonsense"], ["no entry is parked at 'nonsense'", "fieldtally parked list"]),
        (["parked", "show", "1-0", "--side", "SI"], ["no entry is parked at '1-0' of side SI"]),
    ],
)
def test_a_wrong_command_or_option_is_named(cli: Cli, args: list[str], said: list[str]) -> None:
    assert_refused(cli(*args), 2, *said)


@pytest.mark.parametrize("command", ["tallies", "replay"])
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--by", "sides"], ["--by 'sides': no such dimension", DIMENSIONS]),
        (["--by", "SIDE"], ["--by 'SIDE'", DIMENSIONS]),
        (["--by", ""], ["--by ''", DIMENSIONS]),
        (["--by", "side,"], ["--by ''", DIMENSIONS]),
        (["--by", "side,side"], ["--by 'side,side' names a dimension twice"]),
        (["--by", "side"], ["--by side", "never summed", "--where measure=persons"]),
        (["--by", "side", "--where", "measure=persons", "--where", "measure=smugglers"], ["--by side", "never summed"]),
        (["--where", "side"], ["--where 'side': write DIM=VALUE"]),
        (["--where", ""], ["--where '': write DIM=VALUE"]),
        (["--where", "=SI"], ["--where ''", DIMENSIONS]),
        (["--where", "foo=1"], ["--where 'foo'", DIMENSIONS]),
        (["--where", "side=XX"], ["--where side=XX", "there are SI, HR"]),
        (["--where", "side="], ["--where side=", "there are SI, HR"]),
        (["--where", "measure=Persons"], ["--where measure=Persons", "apprehensions, persons, smuggling_cases"]),
        (["--where", "coverage=Joint"], ["--where coverage=Joint", "there are joint, remaining, nothing"]),
        (["--where", "origin=own"], ["--where origin=own", "there are domestic, foreign, nothing"]),
        (["--where", "citizenship=Syria"], ["--where citizenship=Syria: three letters", "SYR"]),
        (["--where", "citizenship=syr"], ["--where citizenship=syr: three letters", "SYR"]),
        (["--where", "operation=a b"], ["--where operation=a b", "1 to 64 characters"]),
        (["--where", "section=a|b"], ["--where section=a|b", "1 to 64 characters"]),
        (["--where", "day=14.3.2024"], ["--where day=14.3.2024", A_DATE]),
        (["--where", "day=2024-02-30"], ["--where day", "2024-02-30", A_DATE]),
        (["--where", "month=2024-13"], ["--where month=2024-13", "a month such as 2024-03"]),
        (["--where", "month=2024-3"], ["--where month=2024-3", "a month such as 2024-03"]),
        (["--where", "year=24"], ["--where year=24", "a year such as 2024"]),
        (["--where", "year=２０２４"], ["--where year", "a year such as 2024"]),
        (["--from", "2024-13-01"], ["--from '2024-13-01'", A_DATE]),
        (["--from", "14.3.2024"], ["--from '14.3.2024'", A_DATE]),
        (["--from", ""], ["--from ''", A_DATE]),
        (["--to", "2024-02-30"], ["--to '2024-02-30'", A_DATE]),
        (["--to", "yesterday"], ["--to 'yesterday'", A_DATE]),
        (["--from", "2024-03-15", "--to", "2024-03-14"], ["--from 2024-03-15 lies after --to 2024-03-14"]),
    ],
)
def test_a_wrong_selector_is_named(cli: Cli, command: str, args: list[str], said: list[str]) -> None:
    assert_refused(cli(command, *args), 2, *said)


@pytest.mark.parametrize(
    ("command", "option"), [("replay", "--as-of"), ("tallies", "--as-of"), ("events", "--after"), ("events", "--as-of")]
)
@pytest.mark.parametrize(
    "text",
    [
        "garbage", "now", "", "2024-02-30", "24:00", "2024-13-01T00:00:00Z", "1710385929",
        "1-99999999999999999999", "1-", "-1-0", "１-0", "1710385929000-0\n", "SI:1-0,SI:2-0", "SI:1-0;HR:2-0", "SI:",
    ],
)  # fmt: skip
def test_a_wrong_position_or_time_is_named(cli: Cli, command: str, option: str, text: str) -> None:
    assert_refused(cli(command, option, text), 2, f"{option} {text!r}", "1710385929000-0", AN_OFFSET)


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "localhost", "http://x", "redis://", "redis://[::1", "redis://x:abc", "redis://x:99999",
     "redis://x/zero", "unix://", "/run/valkey.sock"],
)  # fmt: skip
def test_a_wrong_address_is_named(cli: Cli, url: str) -> None:
    assert_refused(cli("tallies", url=url), 2, "FIELDTALLY_REDIS_URL", url, "redis://HOST:PORT/0", "unix:///")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("SIDES", "nonsense", "CODE:ZONE:CITIZENSHIP"),
        ("SIDES", "SI:Mars/Olympus:SVN", "no IANA time zone"),
        ("PREFIX", "a b", "1 to 32 characters"),
        ("HTTP_PORT", "eighty", "a number from 1 to 65535"),
        ("LOG_LEVEL", "trace", "debug, info, warning, error"),
        ("LOG_FORMAT", "xml", "auto, console, json"),
    ],
)
def test_a_wrong_setting_is_named_by_every_command_that_reads_it(cli: Cli, name: str, text: str, said: str) -> None:
    for command in (["tallies"], ["replay"], ["audit"], ["events"], ["parked", "list"], ["doctor"], ["demo"]):
        assert_refused(cli(*command, **{name: text}), 2, f"FIELDTALLY_{name}", said)


def test_a_data_folder_that_is_a_file_is_named(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert_refused(cli("tallies", url="", DATA_DIR=str(file)), 2, str(file), "FIELDTALLY_DATA_DIR")


@pytest.mark.parametrize(
    "args",
    [["tallies"], ["replay"], ["audit"], ["events"], ["parked", "list"], ["parked", "show", "1-0"],
     ["simulate", "--reports", "2"], ["import", "{file}"], ["project"], ["project", "--until-caught-up"]],
)  # fmt: skip
def test_without_a_server_the_exit_code_is_3(cli: Cli, tmp_path: Path, args: list[str]) -> None:
    file = tmp_path / "reports.ndjson"
    file.write_bytes(b"{}\n")
    nowhere = f"unix://{tmp_path}/none.sock"
    outcome = cli(*[arg.format(file=file) for arg in args], url=nowhere)
    assert_refused(outcome, 3, f"cannot reach {nowhere}", "REDIS_URL")


@pytest.mark.parametrize("url", ["redis://nosuchhost.invalid:1", "redis://127.0.0.1:1", "redis://:sesame@127.0.0.1:1"])
def test_a_host_or_port_without_a_server_is_named_without_its_password(cli: Cli, url: str) -> None:
    assert_refused(cli("tallies", url=url), 3, f"cannot reach {url.replace('sesame', '***')}")


def test_a_wrong_password_is_exit_code_3_and_not_repeated(cli: Cli, fresh_server: OwnServer) -> None:
    with fresh_server.client() as client:
        client.config_set("requirepass", "sesame")
    for url in (fresh_server.url, fresh_server.url.replace("unix://", "unix://:open@")):
        outcome = cli("tallies", url=url)
        assert_refused(outcome, 3, "refuses this user", "password")
        assert "open@" not in outcome.err
    assert 0 == cli("tallies", url=fresh_server.url.replace("unix://", "unix://:sesame@")).code


@pytest.mark.parametrize("command", [["simulate", "--reports", "3"], ["schema", "export"]])
def test_a_file_that_cannot_be_written_is_named(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "no" / "file", "No such file or directory")):
        assert_refused(cli(*command, "--out", str(path)), 2, f"--out '{path}'", why)
    assert_refused(cli(*command, "--out", "/dev/full"), 2, "--out '/dev/full'", "No space left on device")


def test_a_fleet_for_other_sides_is_refused(cli: Cli) -> None:
    outcome = cli("simulate", "--reports", "3", SIDES="AT:Europe/Vienna:AUT")
    assert_refused(outcome, 2, "the fleet reports for SI", "FIELDTALLY_SIDES")
