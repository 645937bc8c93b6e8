"""`demo` runs the joint operation to its end; it ends well only if the audit found what it must, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from schemas.claims import Claims, decode_claims
from services.cli import demo as showing
from services.cli import server
from tests.services.cli.conftest import ROOT, Cli, Outcome

RELEASE = (ROOT / "services/simulator/press_release.toml").read_bytes()
INCONSISTENT = "- smugglers: the breakdown adds up to 5, its own total is 4"
DIFFERENT = "- smugglers ROU: published 2, rebuilt 1"


def test_it_ends_with_0_and_prints_both_findings(process: Callable[..., Outcome]) -> None:
    # Its two sides are its own, whatever is set.
    outcome = process("demo", "--exit", "--seconds", "2", url="", SIDES="AT:Europe/Vienna:AUT")
    assert (0, "") == (outcome.code, outcome.err)
    lines = outcome.out.splitlines()
    assert "21 confirmed, 2 not:" in lines
    assert 1 == sum(line.startswith(INCONSISTENT) for line in lines)
    assert 1 == sum(line.startswith(DIFFERENT) for line in lines)
    live, rebuilt = (next(line for line in lines if line.startswith(f"{what}: ")) for what in ("live", "rebuilt"))
    assert live.split("position")[1] == rebuilt.split("position")[1]
    digests = [line.split()[-1] for line in lines if " digest " in line]
    assert 2 == len(digests)
    assert digests[0] == digests[1]
    assert lines[-1].startswith("As it should be: live equals rebuilt, and of 16 claims")


def _claims(change: Callable[[Claims], Claims]) -> Claims:
    return change(decode_claims(RELEASE))


def _one_more(claims: Claims) -> Claims:
    wrong = next(claim for claim in claims.claims if claim.equals == 127)
    return replace(claims, claims=(*claims.claims, replace(wrong, equals=128)))


def _corrected(claims: Claims) -> Claims:
    corrected = [
        replace(claim, breakdown={"citizenship": {"UKR": 2, "ROU": 1, "SRB": 1}}) if claim.equals == 4 else claim
        for claim in claims.claims
    ]
    return replace(claims, claims=tuple(corrected))


@pytest.mark.parametrize(
    ("change", "code", "last"),
    [
        (lambda claims: claims, 0, "As it should be: live equals rebuilt, and of 16 claims"),
        (_one_more, 1, "NOT as it should be"),
        (_corrected, 1, "NOT as it should be"),
    ],
    ids=["the release", "one more difference", "the release put right"],
)
def test_any_other_finding_is_exit_code_1(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, change: Callable[[Claims], Claims], code: int, last: str
) -> None:
    monkeypatch.setattr(showing, "decode_claims", lambda _: _claims(change))
    outcome = cli("demo", "--exit", "--seconds", "0", url="")
    assert code == outcome.code, outcome.err
    assert outcome.out.splitlines()[-1].startswith(last)


def test_a_projector_that_ends_is_said_and_not_waited_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "sys", SimpleNamespace(executable="false"))
    outcome = cli("demo", "--exit", "--seconds", "0", url="")
    assert (1, "fieldtally: the projector has ended (exit 1): run `fieldtally doctor`\n") == (outcome.code, outcome.err)


def test_its_seed_spreads_the_figures_and_changes_none_of_the_totals(cli: Cli) -> None:
    outcome = cli("demo", "--exit", "--seconds", "0", "--seed", "7", url="")
    assert 0 == outcome.code, outcome.out
