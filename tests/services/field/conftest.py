"""A stub of the gateway for the tests of the field client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.field.patrols import Stub, stub_gateway


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Give a gateway that answers what it is told."""
    with stub_gateway() as stub:
        yield stub
