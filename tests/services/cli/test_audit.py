"""`audit` compares live with rebuilt tallies, cell by cell, and published figures with the log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from schemas.claims import RELATIONS, Claims
from schemas.vocabulary import Position, Side
from services.cli import audit as auditing
from services.replay.audit import Verdict
from services.simulator.joint_operation import joint_operation
from services.tally.compare import Finding, judge
from services.tally.rollup import Terms
from tests import given
from tests.services.cli.conftest import ROOT, Cli, assert_refused, count, record, told

AT = "cli-audit"
SEED = 2024
RELEASE = str(ROOT / "services/simulator/press_release.toml")
SENTENCE = "four migrant smugglers (two Ukrainians, two Romanians and one Serbian)"


@pytest.fixture(scope="module", autouse=True)
def _joint_operation(server_url: str) -> Iterator[None]:
    events: dict[str, list[bytes]] = {"SI": [], "HR": []}
    for submission in joint_operation(SEED):
        events[submission.side].append(submission.event)
    with told(server_url, AT, events):
        yield


@pytest.fixture
def claims_file(tmp_path: Path) -> Callable[..., str]:
    """Write a claims file with one claim, and return its path."""

    def write(claim: str = "equals = 127", head: str = 'title = "t"\npublished = 2024-03-15\nsource = "s"') -> str:
        file = tmp_path / "claims.toml"
        file.write_text(f'{head}\n[[claim]]\ntext = "127 persons"\nmeasure = "persons"\n{claim}\n')
        return str(file)

    return write


def test_the_release_has_exactly_two_findings(cli: Cli) -> None:
    outcome = cli("audit", "--claims", RELEASE, "--format", "json", at=AT)
    assert (1, "") == (outcome.code, outcome.err)
    assert [
        {"text": SENTENCE, "measure": "smugglers", "key": "", "published": 4, "rebuilt": 4, "verdict": "inconsistent"},
        {"text": SENTENCE, "measure": "smugglers", "key": "ROU", "published": 2, "rebuilt": 1, "verdict": "different"},
    ] == [claim for claim in outcome.json["claims"] if claim["verdict"] != "confirmed"]
    assert 23 == len(outcome.json["claims"])


def test_the_json_has_these_keys(cli: Cli) -> None:
    found = cli("audit", "--claims", RELEASE, "--format", "json", at=AT).json
    contract = ["position", "digest", "live_equals_rebuilt", "claims"]
    assert [*contract, "live_position", "fold_equals_sql", "differences", "look_at"] == list(found)
    assert found["fold_equals_sql"] is True
    assert {"SI", "HR"} == set(found["position"])
    assert found["live_equals_rebuilt"] is True
    for claim in found["claims"]:
        assert ["text", "measure", "key", "published", "rebuilt", "verdict"] == list(claim)


def test_position_and_digest_are_those_of_the_tallies(cli: Cli) -> None:
    found = cli("audit", "--format", "json", at=AT).json
    at = ", ".join(f"{side} {position}" for side, position in found["position"].items())
    assert f"live tallies as of {at}; digest {found['digest']}\n" == cli("tallies", at=AT).err
    assert [] == found["claims"]


def test_an_agreement_is_exit_code_0(cli: Cli) -> None:
    outcome = cli("audit", at=AT)
    assert (0, "") == (outcome.code, outcome.err)
    assert re.match(r"live equals rebuilt: every cell agrees at SI \d+-\d+, HR \d+-\d+\n", outcome.out)


def test_the_table_shows_relations_texts_once_and_the_findings_in_words(cli: Cli) -> None:
    outcome = cli("audit", "--claims", RELEASE, at=AT)
    assert 1 == outcome.code
    table = outcome.table
    assert ["verdict", "measure", "published", "rebuilt", "text"] in table
    assert ["confirmed", "persons", "> 7,850", "7,851"] in [row[:4] for row in table]
    assert ["inconsistent", "smugglers", "4", "4", SENTENCE] in table
    assert ["different", "smugglers ROU", "2", "1"] in table
    lines = outcome.out.splitlines()
    assert [
        "21 confirmed, 2 not:",
        f"- smugglers: the breakdown adds up to 5, its own total is 4 ({SENTENCE})",
        f"- smugglers ROU: published 2, rebuilt 1 ({SENTENCE})",
        "  smugglers ROU: at no position did the log give the published figure",
    ] == lines[lines.index("21 confirmed, 2 not:") :][:4]


def test_the_numbers_of_the_table_are_aligned_with_their_relations(cli: Cli) -> None:
    lines = cli("audit", "--claims", RELEASE, at=AT).out.splitlines()
    heading = next(line for line in lines if line.startswith("verdict "))
    column = heading.index("published") + len("published")
    for line in lines[lines.index(heading) + 1 : lines.index("21 confirmed, 2 not:") - 1]:
        assert line[column - 1].isdigit(), line
        assert "  " == line[column : column + 2], line


@pytest.mark.parametrize(
    ("relation", "figure", "verdict"),
    [
        ("equals", 127, "confirmed"), ("equals", 126, "different"),
        ("more_than", 126, "confirmed"), ("more_than", 127, "different"),
        ("at_least", 127, "confirmed"), ("at_least", 128, "different"),
        ("less_than", 128, "confirmed"), ("less_than", 127, "different"),
        ("at_most", 127, "confirmed"), ("at_most", 126, "different"),
    ],
)  # fmt: skip
def test_every_relation_is_judged_and_shown(
    cli: Cli, claims_file: Callable[..., str], relation: str, figure: int, verdict: str
) -> None:
    file = claims_file(f'where = {{ side = "SI", operation = "{given.OPERATION}" }}\n{relation} = {figure}')
    outcome = cli("audit", "--claims", file, "--format", "json", at=AT)
    code = 0 if verdict == "confirmed" else 1
    assert (code, [verdict]) == (outcome.code, [claim["verdict"] for claim in outcome.json["claims"]])
    sign = {"equals": "", "more_than": "> ", "at_least": ">= ", "less_than": "< ", "at_most": "<= "}[relation]
    assert [verdict, "persons", f"{sign}{figure}", "127", "127 persons"] in cli("audit", "--claims", file, at=AT).table


def test_all_claims_confirmed_is_said(cli: Cli, claims_file: Callable[..., str]) -> None:
    outcome = cli("audit", "--claims", claims_file("at_least = 1"), at=AT)
    assert (0, "all confirmed") == (outcome.code, outcome.out.splitlines()[-1])


def test_a_claim_may_hold_for_several_values_and_days(cli: Cli, claims_file: Callable[..., str]) -> None:
    for days, expected in (("", 127), ("from = 2024-03-16", 0), ("to = 2024-03-12", 0)):
        where = f'where = {{ side = ["SI"], operation = ["{given.OPERATION}", "SI-HR-1999-01"], year = 2024 }}\n{days}'
        found = cli("audit", "--claims", claims_file(f"{where}\nat_least = 0"), "--format", "json", at=AT).json
        assert [expected] == [claim["rebuilt"] for claim in found["claims"]]


def _of_persons(base: str = 'text = "127 persons"\nmeasure = "persons"', head: str | None = None) -> str:
    head = head or 'title = "t"\npublished = 2024-03-15\nsource = "s"'
    return f"{head}\n[[claim]]\n{base}\n"


GOOD = 'text = "x"\nmeasure = "persons"\nequals = 1\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ["missing required field `title`"]),
        (b"\xff\xfe\x00", ["not a text in UTF-8"]),
        (b"title = ", ["Invalid value"]),
        (b"title = \n" * 3, ["line 1"]),
        (b"a = " + b"[" * 100_000, []),
        (_of_persons(GOOD, 'title = "t"\nsource = "s"').encode(), ["missing required field `published`"]),
        (_of_persons(GOOD, 'title = "t"\npublished = "14.3.2024"\nsource = "s"').encode(), ["date", "$.published"]),
        (_of_persons(GOOD, 'title = "t"\npublished = 2024-13-01\nsource = "s"').encode(), ["line 2"]),
        (_of_persons(GOOD + "equal = 1").encode(), ["unknown field `equal`", "$.claim[0]"]),
        (_of_persons(GOOD + "at_least = 1").encode(), ["exactly one of equals, more_than", "equals, at_least"]),
        (_of_persons('text = "x"\nmeasure = "persons"').encode(), ["exactly one of equals", "this has none"]),
        (_of_persons(GOOD.replace("= 1", '= "1"')).encode(), ["got `str`", "$.claim[0].equals"]),
        (_of_persons(GOOD.replace("= 1", "= -1")).encode(), [">= 0", "$.claim[0].equals"]),
        (
            _of_persons(GOOD.replace("persons", "people")).encode(),
            ["'people'", "apprehensions, persons, smuggling_cases"],
        ),
        (_of_persons(GOOD + 'where = { sides = "SI" }').encode(), ["'x'", "no dimension 'sides'", "side, operation"]),
        (
            _of_persons(GOOD + "where = { side = 1 }").encode(),
            ["side is written as a text in quotes", "not as a number", "where"],
        ),
        (_of_persons(GOOD + 'where = { side = "AT" }').encode(), ["'x'", "side=AT", "there are SI, HR"]),
        (
            _of_persons(GOOD + 'where = { citizenship = ["SYR", "Syria"] }').encode(),
            ["citizenship=Syria", "such as SYR"],
        ),
        (_of_persons(GOOD + 'where = { month = "March" }').encode(), ["month=March", "2024-03"]),
        (_of_persons(GOOD + 'where = { measure = "persons" }').encode(), ["the measure is named by `measure`"]),
        (_of_persons(GOOD + "breakdown = { origins = { foreign = 1 } }").encode(), ["no dimension 'origins'"]),
        (_of_persons(GOOD + "breakdown = { origin = { alien = 1 } }").encode(), ["origin=alien", "domestic, foreign"]),
        (_of_persons(GOOD + 'breakdown = { origin = { "" = 1 } }').encode(), ["has no name"]),
        (_of_persons(GOOD + "from = 2024-03-15\nto = 2024-03-14").encode(), ["`from` lies after `to`"]),
    ],
)
def test_what_is_wrong_with_a_claims_file_is_named(cli: Cli, tmp_path: Path, content: bytes, said: list[str]) -> None:
    file = tmp_path / "claims.toml"
    file.write_bytes(content)
    assert_refused(cli("audit", "--claims", str(file)), 2, f"--claims '{file}'", *said)


def test_a_claims_file_that_cannot_be_read_is_named(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("audit", "--claims", str(tmp_path / "no")), 2, f"--claims '{tmp_path}/no'", "No such file")
    assert_refused(cli("audit", "--claims", str(tmp_path)), 2, f"--claims '{tmp_path}'", "Is a directory")


@pytest.mark.parametrize("live", [b"7", None], ids=["another count", "no count"])
def test_a_live_cell_that_differs_is_named_with_exit_code_1(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, live: bytes | None
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=1, persons={"SYR": 4, "AFG": 2})]})
    count(server_url, prefix)
    key, cell = f"{{{prefix}:SI}}:g1:tallies", "SI||koper|2024-03-14|persons|SYR"
    if live:
        client.hset(key, cell, live)
    else:
        client.hdel(key, cell)
    outcome = cli("audit")
    assert 1 == outcome.code
    at = str(client.xinfo_stream(f"{{{prefix}:SI}}:log")["last-generated-id"], "ascii")
    assert [["cell", "live", "rebuilt", "from"], [cell, (live or b"0").decode(), "4", at]] == outcome.table[1:3]
    found = cli("audit", "--format", "json")
    assert (1, False) == (found.code, found.json["live_equals_rebuilt"])


def test_a_live_cell_that_should_not_be_is_named(cli: Cli, client: redis.Redis, server_url: str, prefix: str) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=1)]})
    count(server_url, prefix)
    client.hset(f"{{{prefix}:SI}}:g1:tallies", "SI||ljubljana|2024-03-14|persons|SYR", 3)
    outcome = cli("audit")
    assert 1 == outcome.code
    assert ["SI||ljubljana|2024-03-14|persons|SYR", "3", "0", "no event"] in outcome.table


def test_live_tallies_that_are_behind_agree_as_far_as_they_reach(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, claims_file: Callable[..., str]
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=1)]})
    count(server_url, prefix)
    record(client, prefix, {"SI": [given.apprehension(id=2), given.apprehension(id=3)]})
    outcome = cli("audit", "--claims", claims_file("equals = 3"))
    assert 0 == outcome.code
    assert "side SI: 2 entries not in the live tallies yet; is the projector running?\n" in outcome.err
    assert "live equals rebuilt" in outcome.out


def test_an_audit_of_nothing_is_no_agreement(cli: Cli, prefix: str, tmp_path: Path) -> None:
    data = str(tmp_path)
    for args in (("audit",), ("audit", "--claims", RELEASE), ("audit", "--format", "json")):
        assert_refused(
            cli(*args, DATA_DIR=data), 2, "no log or archive here", "SI, HR", repr(prefix), data, "REDIS_URL"
        )


@pytest.mark.parametrize(
    "args",
    [("audit",), ("replay",), ("tallies",), ("stats",), ("events",), ("sql", "SELECT 1"), ("parked", "list"),
     ("archive", "verify"), ("archive", "list"), ("doctor",)],
)  # fmt: skip
def test_reading_makes_no_folder(cli: Cli, tmp_path: Path, args: tuple[str, ...]) -> None:
    data = tmp_path / "typo"
    outcome = cli(*args, url="", DATA_DIR=str(data))
    assert (0 if args[-1] == "list" and args[0] == "archive" else 2) == outcome.code
    assert str(data) in outcome.out + outcome.err
    assert not data.exists()


def _findings(*claims: dict[str, Any]) -> tuple[Claims, list[Finding]]:
    """Judge hand-made claims about a log with four persons from SYR and one from AFG."""
    document = {"title": "t", "published": "2024-03-15", "source": "s"}
    made = msgspec.convert(document | {"claim": [{"text": "t", "measure": "persons"} | c for c in claims]}, Claims)
    event = given.apprehension(persons={"SYR": 4, "AFG": 1})
    return made, judge(made.claims, given.Folded(event).state.tallies, Terms({Side("SI"): "SVN"}, {}))


@pytest.mark.parametrize("relation", RELATIONS)
def test_figures_with_the_same_text_keep_their_own_relation_and_breakdown(
    capsys: pytest.CaptureFixture[str], relation: str
) -> None:
    parts = {"citizenship": {"SYR": 4, "AFG": 7}}
    claims, findings = _findings(
        {"equals": 9},  # differs
        {"equals": 5, "breakdown": parts},  # inconsistent, and AFG differs
        {"equals": 9, "breakdown": parts},  # differs and is inconsistent
        {relation: 5},
    )
    auditing.print_verdict(Verdict({}, "", {}, {}, {}, [], findings), claims)
    said = capsys.readouterr().out.splitlines()
    assert [
        "- persons: published 9, rebuilt 5 (t)",
        "- persons: the breakdown adds up to 11, its own total is 5 (t)",
        "- persons AFG: published 7, rebuilt 1 (t)",
        "- persons: published 9, rebuilt 5 (t)",
        "- persons: the breakdown adds up to 11, its own total is 9 (t)",
        "- persons AFG: published 7, rebuilt 1 (t)",
    ] == [line for line in said if line[0:1] == "-"][:6]
    sign = {"equals": "5", "more_than": "> 5", "at_least": ">= 5", "less_than": "< 5", "at_most": "<= 5"}[relation]
    last = next(line for line in reversed(said) if re.match(r"(confirmed|different) +persons  ", line))
    assert sign == last.split("persons", 1)[1].strip().split("  ")[0]


def test_a_claim_about_a_part_of_an_opening_balance_is_told_that_it_has_the_whole(
    cli: Cli, client: redis.Redis, prefix: str, claims_file: Callable[..., str]
) -> None:
    """Until it is withdrawn."""
    balance = given.opening_balance(
        id=1, totals=[{"measure": "persons", "count": 653}], period_from="2022-01-01", period_to="2022-12-31"
    )
    record(client, prefix, {"SI": [balance, given.apprehension(id=2, persons={"SYR": 4}, time="2022-12-02T03:00:00Z")]})
    part = claims_file("equals = 657\nfrom = 2022-07-01\nto = 2022-12-31")
    [claim] = cli("audit", "--claims", part, "--format", "json").json["claims"]
    said = "includes an opening balance of SI for 2022-01-01 to 2022-12-31, which counts whole on its last day"
    assert ("confirmed", said) == (claim["verdict"], claim["note"])
    [whole] = cli("audit", "--claims", claims_file("equals = 657"), "--format", "json").json["claims"]
    assert "note" not in whole
    record(client, prefix, {"SI": [given.withdrawal(id=3, amends=1, revision=1)]})
    part = claims_file("equals = 657\nfrom = 2022-07-01\nto = 2022-12-31")
    [withdrawn] = cli("audit", "--claims", part, "--format", "json").json["claims"]
    assert (4, False) == (withdrawn["rebuilt"], "note" in withdrawn)


def test_positions_are_said_per_side(capsys: pytest.CaptureFixture[str]) -> None:
    at = {Side("SI"): Position("5-0"), Side("HR"): Position("7-1")}
    auditing.print_verdict(Verdict(at, "d1gest", at, {}, {}, [], []), None)
    assert [
        "live equals rebuilt: every cell agrees at SI 5-0, HR 7-1",
        "rebuilt: position SI 5-0, HR 7-1",
        "rebuilt: digest d1gest",
    ] == capsys.readouterr().out.splitlines()


def test_where_live_and_rebuilt_differ_the_cells_are_in_the_json_too(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=1, persons={"SYR": 4})]})
    count(server_url, prefix)
    [cell] = [cell for cell in client.hkeys(f"{{{prefix}:SI}}:g1:tallies") if b"|persons|" in cell]
    client.hset(f"{{{prefix}:SI}}:g1:tallies", cell, 5)
    found = cli("audit", "--format", "json").json
    assert found["position"] == found["live_position"]
    parts = ("side", "operation", "section", "day", "measure", "citizenship")
    named = dict(zip(parts, cell.decode().split("|"), strict=True)) | {"live": 5, "rebuilt": 4}
    at = found["position"]["SI"]
    [difference] = found["differences"]
    assert ("live", "SI", at) == (difference["kind"], difference["side"], difference["first_position"])
    text = f"from {at} on the log never again gives the 5 that live holds"
    begun = {"first_position": at, "followed": True, "events_in_all": 1, "text": text}
    assert [named | begun] == difference["cells"]
    [event] = difference["events"]
    assert {
        "side": "SI",
        "position": at,
        "id": given.uid(1),
        "type": "apprehension",
        "revision": 0,
    }.items() <= event.items()
    assert [dict(list(named.items())[:6]) | {"change": 4}] == event["cells"]
    assert 1 == difference["events_in_all"]


def test_a_zone_that_was_changed_is_a_setting_to_put_back_and_no_difference(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=1)]})
    count(server_url, prefix)
    for command in ("audit", "doctor", "project"):
        outcome = cli(command, SIDES="SI:America/New_York:SVN")
        assert 2 == outcome.code
        assert "counted in Europe/Ljubljana, FIELDTALLY_SIDES says America/New_York" in outcome.out + outcome.err


def test_a_claims_file_may_begin_with_the_mark_of_an_editor(cli: Cli, claims_file: Callable[..., str]) -> None:
    file = Path(claims_file("at_least = 1"))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert 0 == cli("audit", "--claims", str(file), at=AT).code


def test_a_condition_without_a_value_is_refused(cli: Cli, claims_file: Callable[..., str]) -> None:
    assert_refused(cli("audit", "--claims", claims_file("where = { side = [] }\nequals = 1")), 2, "no value of side")


def test_a_misspelt_operation_in_a_claim_is_named(cli: Cli, claims_file: Callable[..., str]) -> None:
    claims = claims_file('equals = 127\nwhere = { operation = "SI-HR-2024-3" }')
    outcome = cli("audit", "--claims", claims, "--format", "json", at=AT)
    said = "unknown operation SI-HR-2024-3; the log knows SI-HR-2024-03"
    [claim] = outcome.json["claims"]
    assert (1, "different", said) == (outcome.code, claim["verdict"], claim["note"])
    printed = cli("audit", "--claims", claims, at=AT).out
    assert f"- persons: published 127, rebuilt 0 (127 persons); {said}\n" in printed
    assert f"127 persons; {said}\n" in printed
    other = claims_file('equals = 0\nwhere = { section = ["koper", "kopr"] }')
    [claim] = cli("audit", "--claims", other, "--format", "json", at=AT).json["claims"]
    assert claim["note"].startswith("unknown section kopr; the log knows koper")


@pytest.mark.parametrize("command", [["tallies"], ["replay"], ["stats", "months"]])
def test_a_misspelt_section_of_where_is_named(cli: Cli, command: list[str]) -> None:
    outcome = cli(*command, "--where", "section=kopr", at=AT)
    assert 0 == outcome.code
    assert "--where: unknown section kopr; the log knows koper" in outcome.err
    assert "unknown" not in cli(*command, "--where", "section=koper", "--where", "operation=", at=AT).err
    far = cli(*command, "--where", "operation=x", at=AT).err
    assert "--where: unknown operation x; the log knows SI-HR-2024-03" in far


def test_a_claims_file_moves_no_cursor(cli: Cli, claims_file: Callable[..., str]) -> None:
    file = Path(claims_file("equals = 1"))
    file.write_text(file.read_text().replace("127 persons", "a\\nb\\u001b[31m"))
    printed = cli("audit", "--claims", str(file), at=AT).out
    assert printed.replace("\n", "").isprintable()
    [line] = [line for line in printed.splitlines() if line.startswith("- ")]
    assert "a\ufffdb\ufffd[31m" in line
