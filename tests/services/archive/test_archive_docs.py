"""What `docs/archive.md` tells other programs is so: its columns, its SQL, its check by hand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import duckdb
import msgspec
import pyarrow.parquet as pq
import pytest
import redis

from services.store.contract import Entry
from services.store.segments import MANIFEST, read_manifest
from tests import archives, oracle
from tests.archives import SI, archive_now, folder_of, small_pieces
from tests.given import seeded_log

DOCUMENT = (Path(__file__).parents[3] / "docs/archive.md").read_text()
SEED = 20240313


def blocks(language: str) -> list[str]:
    """Return the blocks of the document in a language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


class Made:
    """An archive, and the log that it is of."""

    def __init__(self, folder: Path, log: list[Entry]) -> None:
        self.folder = folder
        self.log = log

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """Ask DuckDB, as the document does."""
        with duckdb.connect() as connection:
            return connection.sql(sql.replace("'ft-SI/", f"'{self.folder}/")).fetchall()

    def check(self) -> subprocess.CompletedProcess[str]:
        """Check by hand, as the document does."""
        return subprocess.run(
            ["sh", "-c", "set -e\n" + blocks("sh")[0]], cwd=self.folder, capture_output=True, text=True, check=False
        )


@pytest.fixture
def made(server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    small_pieces(monkeypatch, segment=100, group=32, read=50)
    log = archives.write(client, prefix, seeded_log(SEED, 300)["SI"])
    archive_now(server_url, prefix, tmp_path)
    return Made(folder_of(tmp_path, prefix), log)


def test_the_table_names_every_column_and_no_other(made: Made) -> None:
    table = DOCUMENT.split("## The columns")[1].split("**The bytes")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert named == pq.ParquetFile(made.folder / "000001.parquet").schema_arrow.names


def test_the_example_of_a_line_has_the_members_of_a_line(made: Made) -> None:
    [example] = blocks("json")
    line = (made.folder / MANIFEST).read_bytes().splitlines()[1]
    assert list(msgspec.json.decode(example)) == list(msgspec.json.decode(line))


def test_the_entries_come_byte_for_byte_by_the_sql(made: Made) -> None:
    expected = [
        (entry.position, entry.fields.get(b"event"), entry.fields.get(b"by"))
        for entry in made.log
        if entry.fields.keys() <= {b"event", b"by"}
    ]
    assert made.ask(blocks("sql")[0]) == expected


def test_the_sums_by_the_sql_are_those_of_all_reports(made: Made) -> None:
    expected: dict[tuple[str, str], int] = {}
    for entry in made.log:
        event = oracle.event_of(entry.fields, "SI")
        if event and event["type"] == "apprehension":
            for counted in event["data"]["persons"]:
                name = (event.get("subject") or "", counted["citizenship"])
                expected[name] = expected.get(name, 0) + counted["count"]
    assert made.ask(blocks("sql")[1]) == [(*name, count) for name, count in sorted(expected.items())]


def test_the_check_by_hand_finds_the_head_and_what_was_altered(made: Made) -> None:
    whole = made.check()
    assert (whole.returncode, whole.stdout) == (0, f"head {read_manifest(made.folder, SI).head}\n"), whole.stderr
    segment, manifest = made.folder / "000002.parquet", made.folder / MANIFEST
    content = segment.read_bytes()
    segment.write_bytes(content[:-1] + b"x")
    assert made.check().returncode
    segment.write_bytes(content)
    lines = manifest.read_bytes()
    manifest.write_bytes(lines.replace(b'"count":100', b'"count":101', 1))
    altered = made.check()
    assert (altered.returncode, altered.stdout[:18]) == (1, 'altered: {"number"')
