"""Measurement of the second engine: the audit's SQL over an archive, against DuckDB reading the same as JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from archive import MANY, archived, written_as_json
from figures import ROUNDS, ratio, show

Run = Callable[..., dict[str, float]]


def sql(run: Run) -> None:
    """Cells of both sides from segments, against `read_json` of NDJSON: reading it merely, and with the same sums."""
    with archived(MANY) as folder, tempfile.TemporaryDirectory(prefix="fieldtally-bench-") as json:
        written_as_json(MANY, Path(json))
        print(f"\nthe audit's SQL over {MANY:,} archived events, both sides, one after the other")
        ours, merely, same = [], [], []
        for _ in range(ROUNDS):
            ours.append(run("", "sql_archive", str(folder))["per_s"])
            merely.append(run("", "sql_json_read", json)["per_s"])
            same.append(run("", "sql_json_sums", json)["per_s"])
        show("from the archive: opening it, and every cell", ours, "events/s")
        show("DuckDB's read_json, reading all fields and nothing else", merely, "events/s")
        show("read_json, and the same SQL over what it read", same, "events/s")
        ratio("audit's SQL against merely reading JSON", ours, merely)
        ratio("audit's SQL against the same from JSON", ours, same)
