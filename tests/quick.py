"""Lets a control room look at its server and speak often: the rules are the same, the waiting is not.

Imported by a cradle, for the processes that it starts.
"""

from services.control_room import feed, routes, sessions

feed.LOOK_S = 0.2  # type: ignore[misc]
feed.RETRY_S = 0.02  # type: ignore[misc]
routes.HEARTBEAT_S = 0.3  # type: ignore[assignment,misc]
routes.CHECK_AGAIN_S = 0.05  # type: ignore[misc]
sessions.BELIEVED_S = 0.1  # type: ignore[misc]
