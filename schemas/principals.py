"""Who may say and see what: the principals behind the tokens, as stored under `ft:principals`."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, get_args

from msgspec import Struct

from schemas.vocabulary import Side

Role = Literal["unit", "desk", "viewer", "auditor"]
"""unit: reports and amends as itself. desk: a side's headquarters. viewer: sees tallies. auditor: log and parked."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

State = Literal["active", "revoked"]


class Principal(Struct, frozen=True, kw_only=True):
    """Who a token stands for. `side` is one side's code; for viewers and auditors it may be several, comma-separated.

    `unit` and `device` name who reports; for viewers and auditors, whose screen it is. After `expires` the token is no
    longer taken: that is how a rotated one ends.
    """

    role: Role
    side: str
    unit: str
    device: str
    enrolled: datetime
    state: State = "active"
    expires: datetime | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides it is given."""
        return tuple(Side(side) for side in self.side.split(","))

    @property
    def source(self) -> str:
        """`/side/unit/device`, as in an event's `source` and in the log's `by`."""
        return f"/{self.side}/{self.unit}/{self.device}"

    def valid_at(self, moment: datetime) -> bool:
        """Tell whether its token is taken at a moment."""
        return self.state == "active" and (self.expires is None or moment < self.expires)
