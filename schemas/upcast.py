"""What happens to other versions of an event type: an older one is raised to the newest, a newer one is explained.

No type has a second version yet, so nothing is raised. The first `.v2` puts its function from the `.v1` event here and
`codec.decode` calls it.
"""

from __future__ import annotations

import re
from typing import Final, get_args

from schemas.events import TYPE_PREFIX, Event

_VERSIONED: Final = re.compile(r"^(?P<name>[a-z-]+)\.v(?P<version>[1-9][0-9]{0,4})\Z")
KNOWN: Final[dict[str, int]] = {
    match["name"]: int(match["version"])
    for kind in get_args(Event)
    if (match := _VERSIONED.match(str(kind.__struct_config__.tag).removeprefix(TYPE_PREFIX)))
}
"""The newest version of each event type that this program understands, by the type's short name."""


def explain_unknown(type_name: str) -> str:
    """Say in words why a type is not understood, and what to do about it."""
    match = _VERSIONED.match(type_name.removeprefix(TYPE_PREFIX)) if type_name.startswith(TYPE_PREFIX) else None
    if match and match["name"] in KNOWN:
        newest = KNOWN[match["name"]]
        return f"this program knows `{match['name']}` up to v{newest}: upgrade it, then rebuild"
    return f"no event type of that name; known are {', '.join(sorted(KNOWN))}"
