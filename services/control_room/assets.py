"""The page's own files, as they are served: each under an address that carries its hash."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from typing import Final

from msgspec import Struct

from services.control_room.words import LANGUAGES, words_json

_TYPES: Final = {
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
}


class Asset(Struct, frozen=True):
    """A static file: what it is, and the hash that its address carries."""

    media_type: str
    raw: bytes
    zipped: bytes
    version: str


def load_assets() -> dict[str, Asset]:
    """Return all static files by their names, and the words of each language."""
    raws = {entry.name: entry.read_bytes() for entry in files(__package__).joinpath("static").iterdir()}
    raws |= {f"words.{language}.json": words_json(language) for language in LANGUAGES}
    return {
        name: Asset(
            _TYPES[name.rpartition(".")[2]],
            raw,
            gzip.compress(raw, 9, mtime=0),
            hashlib.sha256(raw).hexdigest()[:16],
        )
        for name, raw in raws.items()
    }
