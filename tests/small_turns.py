"""Lets a rebuild take small turns, so that a short log has many.

Imported by a cradle, for the processes that it starts.
"""

from services.replay import rebuild

rebuild.BATCH = 30  # type: ignore[misc]
