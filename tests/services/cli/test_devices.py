"""`devices` makes tokens that are shown once and nowhere stored, lists who has one, rotates and revokes them."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from services.cli import devices
from services.cli.devices import qr_lines, read_address, read_overlap
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.principals import token_digest
from tests.servers import OwnServer
from tests.services.cli.conftest import Cli, assert_refused, environ, started

ADDRESS = "https://reports.example"
NOON = datetime(2024, 3, 14, 12, tzinfo=UTC)
TOKEN_LINE = re.compile(r"^[A-Za-z0-9_-]{43}$", re.MULTILINE)


class Clock:
    """What `devices` takes for the time."""

    def __init__(self) -> None:
        self.shows = NOON

    def __call__(self) -> datetime:
        """Say what time it is."""
        return self.shows


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(devices, "now", clock)
    return clock


@pytest.fixture
def stored(client: redis.Redis, prefix: str) -> Callable[[], dict[str, dict[str, Any]]]:
    """Read what is stored, by the digests of the tokens."""

    def read() -> dict[str, dict[str, Any]]:
        rows: Any = client.hgetall(f"{prefix}:principals")
        return {digest.decode(): json.loads(row) for digest, row in rows.items()}

    return read


def enrolled(cli: Cli, *args: str) -> dict[str, str]:
    outcome = cli("devices", "enrol", *args, "--format", "json")
    assert 0 == outcome.code, outcome.err
    made: dict[str, str] = outcome.json
    return made


def listed(cli: Cli) -> list[tuple[str, ...]]:
    """Return unit, device and state of all rows."""
    return [(row["unit"], row["device"], row["state"]) for row in cli("devices", "list", "--format", "json").json]


# --- enrolling ---


def test_json_is_one_object_that_begins_with_what_the_contract_names(cli: Cli) -> None:
    outcome = cli("devices", "enrol", "SI-MP-07/9f3c2a", "--address", ADDRESS, "--format", "json")
    assert (0, "") == (outcome.code, outcome.err)
    assert ["token", "role", "side", "unit", "device", "link", "expires"] == list(outcome.json)
    token = outcome.json.pop("token")
    expected = {
        "token": token, "role": "unit", "side": "SI", "unit": "SI-MP-07", "device": "9f3c2a",
        "link": f"{ADDRESS}/#token={token}&source=/SI/SI-MP-07/9f3c2a", "expires": "",
    }  # fmt: skip
    assert expected == outcome.json


def test_the_token_has_256_bits_and_stands_on_a_line_of_its_own(cli: Cli) -> None:
    outcome = cli("devices", "enrol", "SI-MP-07", "--device", "9f3c2a", "--address", ADDRESS)
    assert (0, "") == (outcome.code, outcome.err)
    (token,) = TOKEN_LINE.findall(outcome.out)
    assert 256 == 8 * len(base64.urlsafe_b64decode(token + "="))
    assert outcome.out.startswith("/SI/SI-MP-07/9f3c2a is enrolled as unit.\n")
    assert "shown this once" in outcome.out
    link = f"{ADDRESS}/#token={token}&source=/SI/SI-MP-07/9f3c2a"
    assert f"fieldtally report --join '{link}'" in outcome.out.splitlines()


def test_a_token_is_nowhere_stored(cli: Cli, fresh_server: OwnServer, tmp_path: Path) -> None:
    """Neither under any key of the server nor in its files, and no later command shows it."""

    def call(*args: str) -> str:
        outcome = cli("devices", *args, url=fresh_server.url)
        assert 0 == outcome.code, outcome.err
        return outcome.out + outcome.err

    made = json.loads(call("enrol", "SI-MP-07/9f3c2a", "--address", ADDRESS, "--format", "json"))
    (rotated,) = TOKEN_LINE.findall(call("rotate", "SI-MP-07", "--address", ADDRESS))
    shown = call("list") + call("list", "--format", "json") + call("revoke", "SI-MP-07") + call("list")
    with fresh_server.client() as client:
        kept = b"".join(
            key + client.type(key) + b"".join(field + row for field, row in client.hgetall(key).items())  # type: ignore[operator, union-attr]
            for key in client.scan_iter()
        )
        assert {b"hash"} == {client.type(key) for key in client.scan_iter()}
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for token in (made["token"], rotated):
        digest = token_digest(token)
        assert digest.encode() in kept
        assert digest.encode() in files  # so what was looked through is where it would be
        for form in (token.encode(), base64.urlsafe_b64decode(token + "=")):
            assert form not in kept
            assert form not in files
        assert token not in shown
        assert digest not in shown


def test_the_digest_alone_finds_the_principal(cli: Cli, clock: Clock, stored: Callable[[], Any]) -> None:
    made = enrolled(cli, "SI-HQ", "--role", "desk", "--device", "1", "--valid-for", "30")
    row = {
        "role": "desk", "side": "SI", "unit": "SI-HQ", "device": "1", "enrolled": "2024-03-14T12:00:00Z",
        "state": "active", "expires": "2024-04-13T12:00:00Z",
    }  # fmt: skip
    assert {token_digest(made["token"]): row} == stored()
    assert "2024-04-13T12:00:00Z" == made["expires"]
    assert clock.shows == NOON


def test_a_device_without_a_name_gets_one_of_six_digits(cli: Cli) -> None:
    first, second = enrolled(cli, "SI-MP-07"), enrolled(cli, "SI-MP-07")
    for made in (first, second):
        assert re.fullmatch(r"[0-9a-f]{6}", made["device"])
    assert first["device"] != second["device"]
    assert first["token"] != second["token"]


def test_a_pasted_path_names_side_unit_and_device(cli: Cli) -> None:
    made = enrolled(cli, "/HR/HR-PU-03/9f3c2a")
    assert ("HR", "HR-PU-03", "9f3c2a") == (made["side"], made["unit"], made["device"])


def test_viewers_and_auditors_may_have_several_sides_and_no_link(cli: Cli) -> None:
    for role in ("viewer", "auditor"):
        outcome = cli("devices", "enrol", f"{role}-1", "--role", role, "--side", "HR", "--side", "SI")
        assert (0, "") == (outcome.code, outcome.err)
        assert outcome.out.startswith(f"/SI,HR/{role}-1/")
        assert "report --join" not in outcome.out
        assert "log in with it on the screen at http://127.0.0.1:" in outcome.out
    assert_refused(cli("devices", "enrol", "WALL2", "--role", "viewer"), 2, "viewer 'WALL2'", "--side, one of SI, HR")
    made = enrolled(cli, "wall", "--role", "viewer", "--side", "SI,HR")
    assert ["token", "role", "side", "unit", "device", "screen", "expires"] == list(made)
    assert "SI,HR" == made["side"]


def test_whoever_is_enrolled_is_not_enrolled_again(cli: Cli, stored: Callable[[], Any]) -> None:
    enrolled(cli, "SI-MP-07/9f3c2a")
    before = stored()
    outcome = cli("devices", "enrol", "SI-MP-07/9f3c2a")
    assert_refused(outcome, 2, "/SI/SI-MP-07/9f3c2a is enrolled", "`fieldtally devices rotate SI-MP-07/9f3c2a`")
    assert before == stored()


def test_a_token_in_the_place_of_a_unit_is_not_repeated(cli: Cli) -> None:
    """What is said ends up in terminals and logs; nor is its digest a name of anybody."""
    made = enrolled(cli, "SI-MP-07/9f3c2a")
    for text in (made["token"], token_digest(made["token"]), made["link"]):
        for what in ("enrol", "rotate", "revoke"):
            outcome = cli("devices", what, text)
            assert_refused(outcome, 2, "that is a token", "`fieldtally devices list`")
            assert text not in outcome.err
    assert [("SI-MP-07", "9f3c2a", "active")] == listed(cli)


def test_a_device_that_had_a_token_before_is_worth_a_word(cli: Cli) -> None:
    enrolled(cli, "SI-MP-07/9f3c2a")
    cli("devices", "revoke", "SI-MP-07")
    outcome = cli("devices", "enrol", "SI-MP-07/9f3c2a", "--address", ADDRESS)
    assert 0 == outcome.code
    assert "had a token before" in outcome.err
    assert [("SI-MP-07", "9f3c2a", "revoked"), ("SI-MP-07", "9f3c2a", "active")] == listed(cli)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["enrol"], "Missing argument 'UNIT[/DEVICE]'"),
        (["enrol", "si-mp-07"], "do you mean 'SI-MP-07'?"),
        (["enrol", "MP-07"], "--side"),
        (["enrol", "SI-MP-07", "--side", "XX"], "no side 'XX'"),
        (["enrol", "SI MP 07"], "1 to 64 characters"),
        (["enrol", "SI-MP-07", "--device", ""], "leave it out"),
        (["enrol", "SI-MP-07", "--device", "č"], "device 'č'"),
        (["enrol", "SI-MP-07", "--role", "chief"], "'unit', 'desk', 'viewer', 'auditor'"),
        (["enrol", "SI-MP-07", "--valid-for", "0"], "1<=x<=36500"),
        (["enrol", "SI-MP-07", "--address", "reports.example"], "--address 'reports.example'"),
        (["enrol", "SI-MP-07", "--format", "csv"], "'table', 'json'"),
        (["enrol", "SI-MP-07", "--format", "json", "--qr"], "leave one of them out"),
        (["enrol", "SI-wall", "--role", "viewer", "--qr"], "viewers and auditors send no reports"),
        (["rotate", "SI-MP-07"], "no unit 'SI-MP-07' is enrolled"),
        (["rotate", "SI-MP-07", "--overlap", "24"], "such as 30m, 24h or 7d"),
        (["rotate", "SI-MP-07", "--format", "json", "--qr"], "leave one of them out"),
        (["revoke", "SI-MP-07"], "nobody is yet; `fieldtally devices enrol UNIT` does it"),
        (["revoke", "SI-MP-07", "--side", "si"], "no side 'si': do you mean 'SI'?"),
        (["revoke", "SI-MP-07", "--side"], "see `fieldtally devices revoke --help`"),
        (["revoke"], "Missing argument 'UNIT[/DEVICE]'"),
    ],
)
def test_what_was_typed_wrong_is_named_and_nothing_is_stored(
    cli: Cli, stored: Callable[[], Any], args: list[str], said: str
) -> None:
    assert_refused(cli("devices", *args), 2, said)
    assert {} == stored()


def test_without_a_server_it_ends_with_3(cli: Cli, tmp_path: Path) -> None:
    for args in (["enrol", "SI-MP-07"], ["list"], ["rotate", "SI-MP-07"], ["revoke", "SI-MP-07"]):
        assert_refused(cli("devices", *args, url=f"unix://{tmp_path}/none"), 3, "cannot reach")


# --- the address and the QR code ---


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"HTTP_HOST": "10.0.0.1", "HTTP_PORT": "80"}, "http://10.0.0.1:80"),
        ({"HTTP_HOST": "::1"}, "http://[::1]:8080"),
    ],
)
def test_without_an_address_it_is_that_of_the_settings(
    settings_for: Callable[..., Settings], environ: dict[str, str], expected: str
) -> None:
    assert expected == read_address(settings_for("redis://127.0.0.1:1/0", **environ), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ADDRESS, ADDRESS),
        (f"{ADDRESS}/", ADDRESS),
        ("HTTP://10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_an_address_is_scheme_host_and_port(settings: Settings, text: str, expected: str) -> None:
    assert expected == read_address(settings, text)


@pytest.mark.parametrize(
    "text",
    ["", "reports.example", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://u:p@x", "http://x/y",
     "http://x?y", "http://x#y", "http://x y", "http://č.example", "http://[::g]"],
)  # fmt: skip
def test_anything_else_is_no_address(settings: Settings, text: str) -> None:
    with pytest.raises(UsageError, match="write scheme, host and port only"):
        read_address(settings, text)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "no phone can reach http://127.0.0.1:8080"),
        ("http://localhost:8080", "no phone can reach"),
        ("https://[::1]", "no phone can reach"),
        ("http://0.0.0.0:8080", "no phone can reach"),
        ("http://10.0.0.1:8080", "not encrypted: the token and the reports would travel in the clear"),
        ("http://reports.example", "not encrypted"),
        (ADDRESS, ""),
    ],
)
def test_an_address_that_is_no_good_for_phones_is_worth_a_word(cli: Cli, address: str | None, said: str) -> None:
    outcome = cli("devices", "enrol", "SI-MP-07", *(["--address", address] if address else []), "--format", "json")
    assert 0 == outcome.code
    assert said in outcome.err
    assert bool(said) == bool(outcome.err)
    assert outcome.json["token"] not in outcome.err


def decoded(lines: list[str]) -> str:
    """Read a QR code drawn in half blocks, as ISO/IEC 18004 says; of one block of codewords, in bytes, undamaged.

    Written for this test alone, and shares nothing with what draws the code.
    """
    dark_of = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
    rows = [[dark_of[sign][half] for sign in line] for line in lines for half in (0, 1)]
    size = len(lines[0]) - 8
    assert all(not any(row[:4]) and not any(row[-4:]) for row in rows[: size + 8]), "no quiet zone beside it"
    assert not any(map(any, rows[:4] + rows[size + 4 : size + 8])), "no quiet zone above or below"
    grid = [row[4:-4] for row in rows[4 : size + 4]]
    version = (size - 17) // 4
    assert (size - 17) % 4 == 0
    assert version in range(2, 6), "one alignment pattern, one block at level L"

    places = [(8, 0), (8, 1), (8, 2), (8, 3), (8, 4), (8, 5), (8, 7), (8, 8)]
    format_bits = int("".join(str(grid[row][column]) for row, column in places[:5]), 2) ^ (0x5412 >> 10)
    assert 0b01 == format_bits >> 3, "error correction level L"
    masks: list[Callable[[int, int], bool]] = [
        lambda i, j: (i + j) % 2 == 0,
        lambda i, _: i % 2 == 0,
        lambda _, j: j % 3 == 0,
        lambda i, j: (i + j) % 3 == 0,
        lambda i, j: (i // 2 + j // 3) % 2 == 0,
        lambda i, j: i * j % 2 + i * j % 3 == 0,
        lambda i, j: (i * j % 2 + i * j % 3) % 2 == 0,
        lambda i, j: ((i + j) % 2 + i * j % 3) % 2 == 0,
    ]
    mask = masks[format_bits & 0b111]

    def holds_data(i: int, j: int) -> bool:
        finder = (i < 9 and j < 9) or (i < 9 and j >= size - 8) or (i >= size - 8 and j < 9)
        aligns = abs(i - (size - 7)) <= 2 and abs(j - (size - 7)) <= 2
        return not (finder or aligns or 6 in (i, j))

    bits = ""
    columns = [column for column in range(size - 1, 0, -1) if column > 6] + [5, 4, 3, 2, 1, 0]
    for pair in range(len(columns) // 2):
        upwards = pair % 2 == 0
        for i in range(size - 1, -1, -1) if upwards else range(size):
            for j in columns[2 * pair : 2 * pair + 2]:
                if holds_data(i, j):
                    bits += str(grid[i][j] ^ mask(i, j))
    assert "0100" == bits[:4], "bytes"
    length = int(bits[4:12], 2)
    return bytes(int(bits[12 + 8 * at : 20 + 8 * at], 2) for at in range(length)).decode()


def blocks(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line and set(line) <= set("█▀▄ ")]


def test_the_printed_qr_code_reads_as_the_link(cli: Cli) -> None:
    for _ in range(8):  # of eight masks, several
        printed = cli("devices", "enrol", "SI-MP-07", "--address", ADDRESS, "--qr").out
        (link,) = re.findall(r"--join '(.*)'", printed)
        assert link == decoded(blocks(printed))


def test_a_code_is_a_matrix_with_its_quiet_zone() -> None:
    lines = qr_lines(f"{ADDRESS}/#token={'a' * 43}&source=/SI/SI-MP-07/9f3c2a")
    assert {45} == set(map(len, lines))
    assert 23 == len(lines)


def test_in_a_pipe_there_is_a_code_only_if_asked_for(cli: Cli) -> None:
    for args in ([], ["--no-qr"]):
        assert [] == blocks(cli("devices", "enrol", "SI-MP-07", *args).out)
    assert blocks(cli("devices", "enrol", "SI-MP-07", "--qr").out)


def on_a_terminal(prefix: str, url: str, columns: int, **env: str) -> str:
    """Enrol on a terminal of some columns; return what it shows."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    args = ["devices", "enrol", "SI-MP-07", "--address", ADDRESS]
    inherited = {name: text for name, text in environ(url, prefix).items() if name not in {"NO_COLOR", "COLUMNS"}}
    shown = b""
    try:
        with started(args, inherited | env, stdin=terminal, stdout=terminal, stderr=terminal) as running:
            os.close(terminal)
            while True:
                try:
                    some = os.read(controller, 65_536)
                except OSError:  # the last process on the terminal has ended
                    break
                if not some:
                    break
                shown += some
            assert 0 == running.wait()
    finally:
        os.close(controller)
    return shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_the_code_is_white_on_black_whatever_its_colours(server_url: str, prefix: str) -> None:
    shown = on_a_terminal(prefix, server_url, 80, TERM="xterm")
    lines = re.findall(r"^\x1b\[97;40m(.*)\x1b\[0m$", shown, re.MULTILINE)
    (link,) = re.findall(r"--join '(.*)'", shown)
    assert link == decoded(lines)


def test_a_narrow_terminal_shows_no_torn_code(server_url: str, prefix: str) -> None:
    shown = on_a_terminal(prefix, server_url, 44, TERM="dumb")
    assert "█" not in shown
    assert "no QR code: it needs a terminal of 45 columns" in shown
    assert TOKEN_LINE.search(shown)


def test_an_output_without_blocks_shows_no_code(
    process: Cli, monkeypatch: pytest.MonkeyPatch, stored: Callable[[], Any]
) -> None:
    """The token comes first: it is stored already, and would be lost."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    outcome = process("devices", "enrol", "SI-MP-07", "--address", ADDRESS, "--qr")
    assert 0 == outcome.code
    assert "no QR code: the output's encoding" in outcome.err
    assert "\\u2588" not in outcome.out
    (token,) = TOKEN_LINE.findall(outcome.out)
    assert [token_digest(token)] == list(stored())


# --- the list ---


@pytest.mark.usefixtures("clock")
def test_the_list_is_in_order_of_side_unit_and_device(cli: Cli) -> None:
    for args in (["HR-PU-03/1"], ["SI-MP-08/1"], ["SI-MP-07/2"], ["SI-MP-07/1"], ["SI-HQ/1", "--role", "desk"]):
        enrolled(cli, *args)
    enrolled(cli, "wall/1", "--role", "viewer", "--side", "SI", "--side", "HR", "--valid-for", "1")
    rows = cli("devices", "list", "--format", "json").json
    expected = [
        ("SI", "SI-HQ", "1", "desk", ""),
        ("SI", "SI-MP-07", "1", "unit", ""),
        ("SI", "SI-MP-07", "2", "unit", ""),
        ("SI", "SI-MP-08", "1", "unit", ""),
        ("SI,HR", "wall", "1", "viewer", "2024-03-15T12:00:00Z"),
        ("HR", "HR-PU-03", "1", "unit", ""),
    ]
    columns = ("side", "unit", "device", "role", "expires")
    assert expected == [tuple(row[name] for name in columns) for row in rows]
    assert {("active", "2024-03-14T12:00:00Z")} == {(row["state"], row["enrolled"]) for row in rows}
    assert ["side", "unit", "device", "role", "state", "enrolled", "expires"] == list(rows[0])
    assert rows == cli("devices", "list", "--format", "ndjson").ndjson
    assert rows == cli("devices", "list", "--format", "csv").csv
    shown = cli("devices", "list").table
    assert list(rows[0]) == shown[1]
    assert [[part for part in row.values() if part] for row in rows] == shown[2:]


def test_a_token_is_active_rotated_expired_or_revoked(cli: Cli, clock: Clock) -> None:
    enrolled(cli, "SI-MP-07/1")
    enrolled(cli, "SI-MP-08/1", "--valid-for", "1")
    enrolled(cli, "SI-MP-09/1")
    cli("devices", "revoke", "SI-MP-09")
    clock.shows += timedelta(minutes=1)
    cli("devices", "rotate", "SI-MP-07", "--overlap", "2d")
    clock.shows += timedelta(days=1)
    expected = [
        ("SI-MP-07", "1", "rotated"), ("SI-MP-07", "1", "active"), ("SI-MP-08", "1", "expired"),
        ("SI-MP-09", "1", "revoked"),
    ]  # fmt: skip
    assert expected == listed(cli)
    assert "rotated until 2024-03-16T12:01:00Z" in cli("devices", "list").out
    clock.shows += timedelta(days=1)
    assert ("SI-MP-07", "1", "expired") == listed(cli)[0]


def test_nobody_is_said(cli: Cli) -> None:
    nobody = "nobody has a token yet: `fieldtally devices enrol UNIT` makes one, such as SI-MP-07 for UNIT\n"
    assert (0, "devices: nothing\n", nobody) == cli("devices", "list")
    assert [] == cli("devices", "list", "--format", "json").json


def test_damage_is_said_after_the_others_are_listed_and_is_in_no_ones_way(
    cli: Cli, client: redis.Redis, prefix: str
) -> None:
    enrolled(cli, "SI-MP-07/9f3c2a")
    client.hset(f"{prefix}:principals", "\x1b[2J", "{}")
    outcome = cli("devices", "list")
    assert 4 == outcome.code
    assert "9f3c2a" in outcome.out
    assert 1 == len(outcome.err.splitlines())
    assert "what Fieldtally never wrote" in outcome.err
    assert (outcome.out + outcome.err).replace("\n", "").isprintable()
    assert 0 == cli("devices", "revoke", "SI-MP-07").code


# --- rotating and revoking ---


def test_a_rotation_prints_a_new_token_as_an_enrolment_does(cli: Cli, clock: Clock, stored: Callable[[], Any]) -> None:
    old = enrolled(cli, "SI-MP-07/9f3c2a")
    clock.shows += timedelta(hours=1)
    outcome = cli("devices", "rotate", "SI-MP-07/9f3c2a", "--address", ADDRESS)
    assert (0, "") == (outcome.code, outcome.err)
    assert "the old one is taken until 2024-03-15T13:00:00Z" in outcome.out
    (new,) = TOKEN_LINE.findall(outcome.out)
    assert f"{ADDRESS}/#token={new}&source=/SI/SI-MP-07/9f3c2a" in outcome.out
    rows = stored()
    assert {token_digest(old["token"]), token_digest(new)} == set(rows)
    assert "2024-03-15T13:00:00Z" == rows[token_digest(old["token"])]["expires"]
    assert ("2024-03-14T13:00:00Z", None) == tuple(rows[token_digest(new)][name] for name in ("enrolled", "expires"))
    again = cli("devices", "rotate", "SI-MP-07/9f3c2a", "--address", ADDRESS, "--format", "json").json
    assert ["token", "role", "side", "unit", "device", "link", "expires"] == list(again)


def test_a_rotation_without_overlap_revokes_the_old_token(cli: Cli) -> None:
    enrolled(cli, "SI-MP-07/9f3c2a")
    outcome = cli("devices", "rotate", "SI-MP-07/9f3c2a", "--overlap", "0", "--address", ADDRESS)
    assert "the old one is revoked, refused everywhere within 10 s" in outcome.out
    assert [("SI-MP-07", "9f3c2a", "revoked"), ("SI-MP-07", "9f3c2a", "active")] == listed(cli)


def test_a_revocation_names_each_device_and_a_second_one_does_nothing(cli: Cli, stored: Callable[[], Any]) -> None:
    for device in ("1", "2"):
        enrolled(cli, f"SI-MP-07/{device}")
    cli("devices", "rotate", "SI-MP-07/2")
    expected = (
        "/SI/SI-MP-07/1: 1 token revoked, refused everywhere within 10 s\n"
        "/SI/SI-MP-07/2: 2 tokens revoked, refused everywhere within 10 s\n"
    )
    assert (0, expected, "") == cli("devices", "revoke", "SI-MP-07")
    after = stored()
    assert {"revoked"} == {row["state"] for row in after.values()}
    again = "/SI/SI-MP-07/1: was revoked before, nothing to do\n"
    assert (0, again, "") == cli("devices", "revoke", "/SI/SI-MP-07/1")
    assert after == stored()


def test_an_unknown_device_is_refused_with_those_that_there_are(cli: Cli) -> None:
    enrolled(cli, "SI-MP-07/9f3c2a")
    for what in ("revoke", "rotate"):
        assert_refused(cli("devices", what, "SI-MP-07/123"), 2, "no device '123'; it has 9f3c2a")
        assert_refused(cli("devices", what, "SI-MP-7"), 2, "do you mean 'SI-MP-07'?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", timedelta(0)), ("0m", timedelta(0)), ("30m", timedelta(minutes=30)), ("24h", timedelta(days=1)),
        (" 7d ", timedelta(days=7)), ("90d", timedelta(days=90)),
    ],
)  # fmt: skip
def test_an_overlap_is_in_minutes_hours_or_days(text: str, expected: timedelta) -> None:
    assert expected == read_overlap(text)


@pytest.mark.parametrize(
    "text", ["", "24", "h", "-1h", "1.5h", "1w", "٣h", "1h30m", "91d", "999999d", "9999999m", "nan"]
)
def test_any_other_overlap_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--overlap"):
        read_overlap(text)
