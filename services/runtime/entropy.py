"""Randomness: the one place that draws what nobody may guess. Composition roots pass on what it draws."""

from __future__ import annotations

import random
import secrets
from typing import Final

TOKEN_BYTES: Final = 32


def new_token() -> str:
    """Return a token of 256 random bits, as 43 characters of base64url."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def random_bytes(count: int) -> bytes:
    """Return random bytes for identifiers."""
    return secrets.token_bytes(count)


def jitter() -> float:
    """Return a number from 0 up to 1: to keep many devices from asking at the same moment."""
    return random.random()  # noqa: S311  # nobody gains by guessing a pause
