"""Who may do what: every role at every route, and every kind of event of every side and unit; written from DESIGN."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count, product
from typing import Any, Final, NamedTuple

import pytest
import redis

from schemas.http import BATCH_MAX
from services.runtime.settings import Settings
from tests import given
from tests.gateways import LONG_AGO, Sender, enrolled, reported, running_gateway
from tests.projectors import log_of, project

PUBLIC: Final = (
    "/openapi.json", "/docs", "/docs.css", "/asyncapi.json", "/health/live", "/health/ready", "/metrics",
)  # fmt: skip
BY_TOKEN: Final = ("POST one", "POST batch", "HEAD /v1/events", "GET /v1/devices/me", "GET /v1/operations")
REPORTERS: Final = dict(zip(BY_TOKEN, (201, 202, 204, 200, 200), strict=True))
FORBIDDEN: Final = dict.fromkeys(BY_TOKEN, 403)
UNKNOWN: Final = dict.fromkeys(BY_TOKEN, 401)
ALLOWED: Final = {
    "unit": REPORTERS,
    "desk": REPORTERS,
    "viewer": FORBIDDEN,
    "viewer of two sides": FORBIDDEN,
    "auditor": FORBIDDEN,
    "unit of a side without a log": FORBIDDEN,
    "nobody": UNKNOWN,
    "unknown token": UNKNOWN,
    "revoked unit": UNKNOWN,
    "revoked desk": UNKNOWN,
    "revoked viewer": UNKNOWN,
    "expired unit": UNKNOWN,
    "expired desk": UNKNOWN,
}


def test_each_role_may_use_exactly_its_routes(client: redis.Redis, settings: Settings) -> None:
    def token(role: Any, side: str = "SI", **more: Any) -> str:
        return enrolled(client, settings.prefix, role, side, unit=f"{role}-1", **more)

    past = datetime(2024, 6, 1, tzinfo=UTC)
    assert past > LONG_AGO
    tokens = {
        "unit": token("unit", expires=datetime(9999, 1, 1, tzinfo=UTC)),
        "desk": token("desk"),
        "viewer": token("viewer"),
        "viewer of two sides": token("viewer", "SI,HR"),
        "auditor": token("auditor"),
        "unit of a side without a log": token("unit", "AT"),
        "nobody": None,
        "unknown token": "0" * 43,
        "revoked unit": token("unit", state="revoked"),
        "revoked desk": token("desk", state="revoked"),
        "revoked viewer": token("viewer", state="revoked"),
        "expired unit": token("unit", expires=past),
        "expired desk": token("desk", expires=past),
    }
    ids = count(1)
    answered: dict[str, dict[str, int]] = {}
    with running_gateway(settings) as address:
        for role, secret in tokens.items():
            with Sender(address, secret) as sender:
                own = f"{role.partition(' ')[0]}-1"
                cells = {
                    "POST one": sender.one(reported(next(ids), unit=own)),
                    "POST batch": sender.batch(reported(next(ids), unit=own), reported(next(ids), unit=own)),
                    "HEAD /v1/events": sender.ask("HEAD", "/v1/events"),
                    "GET /v1/devices/me": sender.ask("GET", "/v1/devices/me"),
                    "GET /v1/operations": sender.ask("GET", "/v1/operations"),
                }
                answered[role] = {cell: answer.status_code for cell, answer in cells.items()}
                assert [(path, 200) for path in PUBLIC] == [
                    (path, sender.ask("GET", path).status_code) for path in PUBLIC
                ]
                if (batch := cells["POST batch"]).status_code == 202:
                    assert ["recorded"] * 2 == [result["status"] for result in batch.json()["results"]]
    assert answered == ALLOWED
    assert 2 * 3 == len(log_of(client, settings.prefix, "SI"))  # nobody else left anything


# Reports

UNITS: Final = ("own", "foreign", "desk's")
AMENDED: Final = {
    "none": (),
    "own": ("own",),
    "own, which the desk amended": ("own", "desk's"),
    "foreign": ("foreign",),
    "foreign, which the desk amended": ("foreign", "desk's"),
    "desk's": ("desk's",),
    "not come yet": (),
    "not come yet, but the desk amended it": ("no original", "desk's"),
}
SIDES: Final = ("SI", "HR")


class Cell(NamedTuple):
    """A report: who sends it, of which side and unit and kind it is, and whose report it amends."""

    role: str
    token_side: str
    side: str
    unit: str
    kind: str
    amended: str


CELLS: Final = [
    cell
    for cell in map(Cell._make, product(("unit", "desk"), SIDES, SIDES, UNITS, given.KINDS, AMENDED))
    if cell.kind != "withdrawal" or cell.amended != "none"
]


def allowed(cell: Cell) -> str:
    """Say what becomes of a report: recorded, or the code with which it is rejected (DESIGN section 7)."""
    if cell.side != cell.token_side:
        return "not-your-side"
    if cell.role == "desk":
        return "recorded"
    if cell.unit != "own":
        return "not-your-unit"
    if cell.kind in ("operation-opened", "operation-closed", "opening-balance"):
        return "desk-only"
    if cell.amended.startswith(("foreign", "desk's")):
        return "not-your-report"
    return "recorded"


def _unit(side: str, whose: str) -> str:
    return {"own": f"{side}-MP-07", "foreign": f"{side}-MP-08", "desk's": f"{side}-DESK"}[whose]


DATA: Final[dict[str, given.Document]] = {
    "operation-opened": {
        "name": "n", "starts": "2024-03-13", "ends": "2024-03-15",
        "sections": [{"section": "koper", "area": "k", "coverage": "joint"}],
    },
    "operation-closed": {"closed": "2024-03-15"},
    "apprehension": {"section": "koper", "persons": given.counts({"SYR": 2})},
    "smuggler-arrest": {
        "section": "koper", "case": "K-1", "opens_case": True, "smugglers": given.counts({"UKR": 1}),
        "smuggled_persons": [],
    },
    "custody": {"case": "K-1", "remanded": given.counts({"UKR": 1})},
    "opening-balance": {
        "period_from": "2023-01-01", "period_to": "2023-12-31", "totals": [{"measure": "persons", "count": 1}],
    },
    "nil-report": {"section": "koper", "period_from": "2024-03-14T00:00:00Z", "period_to": "2024-03-14T03:00:00Z"},
    "withdrawal": {"reason": "duplicate"},
}  # fmt: skip


def _report(cell: Cell, number: int) -> bytes:
    head: given.Head = {
        "id": number, "side": cell.side, "unit": _unit(cell.side, cell.unit), "time": "2024-03-14T03:00:00Z",
    }  # fmt: skip
    if cell.kind.startswith("operation"):
        head["subject"] = given.OPERATION
    if cell.amended != "none":
        head |= {"amends": number + 10_000, "revision": len(AMENDED[cell.amended]) or 1}
    return given.canonical(given.document(cell.kind, DATA[cell.kind], **head))


def _made_before(cell: Cell, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield what the log holds of the report that is amended, each with the unit that sends it."""
    for revision, whose in enumerate(AMENDED[cell.amended]):
        if whose != "no original":
            unit = _unit(cell.side, whose)
            more: given.Head = {"amends": number + 10_000, "revision": revision} if revision else {}
            ident = number + 10_000 * (revision + 1)
            yield unit, reported(ident, side=cell.side, unit=unit, time="2024-03-14T03:00:00Z", **more)


@pytest.mark.parametrize("how", ["a moment ago", "by the projector and another gateway"])
def test_each_sender_may_report_and_amend_exactly_what_is_its_own(
    client: redis.Redis, settings_for: Callable[..., Settings], server_url: str, how: str
) -> None:
    settings = settings_for(server_url, RATE_LIMIT="1000000")
    tokens = {
        _unit(side, whose): enrolled(
            client, settings.prefix, "desk" if whose == "desk's" else "unit", side, unit=_unit(side, whose)
        )
        for side, whose in product(SIDES, UNITS)
    }
    numbered = list(enumerate(CELLS, 1))
    before: dict[str, list[bytes]] = {unit: [] for unit in tokens}
    for side in SIDES:
        before[f"{side}-DESK"].append(given.operation_opened(id=90_000, side=side, unit=f"{side}-DESK"))
    for number, cell in numbered:
        for unit, event in _made_before(cell, number):
            before[unit].append(event)

    def submit(address: str, unit: str, events: list[bytes]) -> list[str]:
        with Sender(address, tokens[unit]) as sender:
            became: list[str] = []
            for at in range(0, len(events), BATCH_MAX):
                answer = sender.batch(*events[at : at + BATCH_MAX])
                assert 202 == answer.status_code
                became += [
                    result["problem"]["code"] if result["status"] == "rejected" else result["status"]
                    for result in answer.json()["results"]
                ]
        return became

    def prepare(address: str) -> None:
        # Those who made a report before the desk that amended it.
        for unit in sorted(before, key=lambda unit: "DESK" in unit):
            assert {"recorded"} == set(submit(address, unit, before[unit]))

    def judged(address: str) -> dict[Cell, str]:
        found: dict[Cell, str] = {}
        for role, side in product(("unit", "desk"), SIDES):
            mine = [(number, cell) for number, cell in numbered if (cell.role, cell.token_side) == (role, side)]
            unit = _unit(side, "own" if role == "unit" else "desk's")
            events = [_report(cell, number) for number, cell in mine]
            found |= dict(zip([cell for _, cell in mine], submit(address, unit, events), strict=True))
        return found

    with running_gateway(settings) as address:
        prepare(address)
        found = judged(address) if how == "a moment ago" else {}
    if not found:
        project(settings)
        with running_gateway(settings) as address:
            found = judged(address)
    expected = {cell: allowed(cell) for cell in CELLS}
    assert {} == {cell: (expected[cell], found[cell]) for cell in CELLS if expected[cell] != found[cell]}
    # What the log holds is what was recorded, each under the name of who sent it.
    recorded = {given.uid(number): cell for number, cell in numbered if expected[cell] == "recorded"}
    for side in SIDES:
        entries = [fields for _, fields in log_of(client, settings.prefix, side)]
        log = {json.loads(fields[b"event"])["id"]: fields[b"by"].decode() for fields in entries}
        written = {ident: by for ident, by in log.items() if ident in recorded}
        senders = {"unit": f"/{side}/{side}-MP-07/9f3c2a", "desk": f"/{side}/{side}-DESK/9f3c2a"}
        assert {ident: senders[cell.role] for ident, cell in recorded.items() if cell.side == side} == written
        assert len(log) == len(written) + sum(
            json.loads(event)["side"] == side for events in before.values() for event in events
        )
