"""Stops a control room's clock in the evening of the joint operation's second day: for pictures of that day.

Imported by a cradle, for the processes that it starts.
"""

from datetime import UTC, datetime
from typing import Final

from services.control_room import app

AT: Final = datetime(2024, 3, 14, 20, 13, tzinfo=UTC)

app.now = lambda: AT  # type: ignore[attr-defined]
