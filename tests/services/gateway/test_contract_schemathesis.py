"""The OpenAPI document against the gateway: schemathesis, with every check on, finds no answer that it does not say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from schemas.examples import event_examples, unit_of
from schemas.principals import Role
from schemas.vocabulary import Side
from services.runtime.settings import Settings
from tests import given
from tests.gateways import Sender, enrolled, running_gateway

SEED = 20240313
EXAMPLES = 60
# Trying every edge of every field takes seconds, and is the same whoever sends it; a desk may send all of it.
PHASES: dict[Role, dict[str, Any]] = {"unit": {"coverage": {"enabled": False}}, "desk": {}}


@pytest.mark.parametrize("role", PHASES)
def test_the_gateway_answers_as_its_document_says(
    client: redis.Redis, server_url: str, settings_for: Callable[..., Settings], role: Role, tmp_path: Path
) -> None:
    settings = settings_for(server_url, RATE_LIMIT="1000000", LAG_LIMIT="1000000")
    with running_gateway(settings) as address:
        with Sender(address, enrolled(client, settings.prefix, "desk")) as desk:
            # The document's examples are of an operation, which they open; a unit may not.
            opening = event_examples([side.side for side in settings.sides])["operation-opened"]
            assert 201 == desk.one(given.canonical(json.loads(msgspec.json.encode(opening)))).status_code
        token = enrolled(client, settings.prefix, role, unit=unit_of(Side("SI")))
        found, statuses = checked(address, token, PHASES[role], tmp_path)
    assert not found, f"with the seed {SEED}:\n\n" + "\n\n".join(found)
    everywhere = {200, 202, 204, 401, 422}
    assert everywhere | ({201, 400, 405, 409, 413, 415} if role == "desk" else set()) <= set(statuses), statuses


def checked(address: str, token: str, phases: dict[str, Any], folder: Path) -> tuple[list[str], Counter[int]]:
    """Return what schemathesis finds wrong, and the statuses of all answers."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "cache": {"enabled": False, "directory": str(folder)},
            "base-url": address,
            "continue-on-failure": True,
            "request-timeout": 20,
            "auth": {"openapi": {"token": {"bearer": token}}},
            "generation": {"max-examples": EXAMPLES, "database": "none"},
            "phases": phases,
            "checks": {
                "max_response_time": 10,
                # A report may fit the schema and still break a rule that no schema can state: its side is that of its
                # `source`, its unit the token's, its operation one that is open. The document says 422 for that. And
                # the way to the documentation is a 307.
                "positive_data_acceptance": {"expected-statuses": ["2xx", "307", "401", "403", "409", "422"]},
                # A batch of more than 500 is too large, for which HTTP has a status of its own, and the document too.
                "negative_data_rejection": {"expected-statuses": ["400", "401", "405", "413", "415", "422"]},
            },
        }
    )
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", config=config)
    found: list[str] = []
    statuses: Counter[int] = Counter()
    for event in from_schema(schema).execute():
        if isinstance(event, FatalError):
            raise event.exception
        if isinstance(event, NonFatalError):
            found.append(f"{event.label}: {event.value}")
        if isinstance(event, ScenarioFinished):
            answers = [asked.response for asked in event.recorder.interactions.values()]
            statuses.update(answer.status_code for answer in answers if answer)
            found += [
                f"{event.label} ({event.phase.name}): {check.name}: {check.failure_info.failure}\n"
                f"{check.failure_info.code_sample}"
                for checks in event.recorder.checks.values()
                for check in checks
                if check.failure_info
            ]
    return found, statuses
