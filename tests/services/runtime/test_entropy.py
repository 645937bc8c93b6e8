"""What is drawn here nobody can guess: all bits of a token vary, and none is drawn twice."""

from __future__ import annotations

import base64
import re

from services.runtime.entropy import TOKEN_BYTES, jitter, new_token, random_bytes

DRAWS = 256


def _bits(token: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(token + "="), "big")


def test_a_token_is_256_bits_in_43_characters_that_need_no_escaping() -> None:
    token = new_token()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert 256 == TOKEN_BYTES * 8 == len(base64.urlsafe_b64decode(token + "=")) * 8


def test_every_bit_of_a_token_is_drawn() -> None:
    """One that never changed would be seen; a random one stays the same in all draws once in 2^255 runs."""
    drawn = [_bits(new_token()) for _ in range(DRAWS)]
    changed = 0
    for bits in drawn:
        changed |= bits ^ drawn[0]
    assert 2**256 - 1 == changed


def test_no_token_is_drawn_twice() -> None:
    assert DRAWS == len({new_token() for _ in range(DRAWS)})


def test_random_bytes_are_as_many_as_asked_for_and_differ() -> None:
    assert [0, 1, 10] == [len(random_bytes(count)) for count in (0, 1, 10)]
    assert random_bytes(16) != random_bytes(16)


def test_jitter_lies_from_0_up_to_1_and_differs() -> None:
    drawn = [jitter() for _ in range(DRAWS)]
    assert 0.0 <= min(drawn) < max(drawn) < 1.0
