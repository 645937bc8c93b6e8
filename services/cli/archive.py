"""`archive`, `archive list`, `verify`, `trim` and `restore`: the log in files that never change."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click
from msgspec.structs import asdict, replace

from schemas.vocabulary import START, Position, order
from services.cli.command import ONLY_READ, command, group, run_async, settings
from services.cli.output import Format, format_option, many, note, print_records, progress
from services.cli.selectors import ENDS, read_as_of
from services.cli.server import log_extents, notes_of_trims, server_url
from services.runtime.clock import now
from services.runtime.errors import DamagedLogError, FieldtallyError, UsageError
from services.runtime.forked import Advance, run_forked
from services.runtime.settings import Settings, SideSettings
from services.runtime.signals import run_loop
from services.store.connection import Client, connect
from services.store.contract import LogExtent
from services.store.generations import RedisGenerations
from services.store.keys import PartitionKeys
from services.store.loading import load_fitting
from services.store.segments import MANIFEST, Segment, archive_folder, read_manifest
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import WholeLog, open_log

if TYPE_CHECKING:
    from services.archive.restore import Restored

Result = TypeVar("Result")

WRITTEN_COLUMNS: Final = ("side", "segments", "entries", "to", "archived", "head")
SEGMENT_COLUMNS: Final = ("side", "number", "file", "first", "last", "count", "size", "sha256", "previous")
VERIFIED_COLUMNS: Final = ("side", "file", "verdict")
TRIMMED_COLUMNS: Final = ("side", "trimmed", "left", "archived")
RESTORED_COLUMNS: Final = ("side", "restored", "to", "recorded_since")
_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1)}


@group(
    "archive",
    "archive",
    "archive verify",
    "archive trim --older-than 90d",
    alone=True,
    stands="whole segments stand; `fieldtally archive` goes on after them",
)
@click.option(
    "--until", metavar="POSITION|TIME", help=f"Archive up to here, instead of to where the log ends now. {ENDS}"
)
@format_option()
@click.pass_context
def archive(context: click.Context, until: str | None, output_format: Format) -> None:
    """Write the log into files that never change, and verify them.

    Without a further word: archives what has been recorded since the last time, as Parquet segments in the data folder,
    with a manifest that chains their hashes. Safe to interrupt, and to repeat. Everything that reads the log reads the
    archive and the stream as one.
    """
    if context.invoked_subcommand is not None:
        if until is not None:
            raise UsageError("--until belongs to `fieldtally archive` alone")
        return
    chosen = settings()
    last = read_as_of(chosen, until, "--until")
    with server_url(chosen) as url:
        reached = replace(chosen, redis_url=url)
        extents = run_async(log_extents(reached))
        waiting = sum(extent.entries - extent.archived for extent in extents.values())
        works = {str(side.side): partial(_write, reached, url, side, last.get(side.side)) for side in chosen.sides}
        written = run_forked(works, lambda: progress("archiving", waiting))
    records: list[dict[str, Any]] = []
    for side, segments in zip(chosen.sides, written, strict=True):
        folder = archive_folder(chosen.archive_dir, chosen.prefix, side.side)
        manifest = read_manifest(folder, side.side)
        records.append(
            {
                "side": side.side, "segments": len(segments), "entries": sum(segment.count for segment in segments),
                "to": manifest.end, "archived": manifest.entries, "head": manifest.head,
            }
        )  # fmt: skip
    print_records(records, WRITTEN_COLUMNS, output_format, f"archived in {chosen.archive_dir}")
    for record in records:
        asked = last.get(record["side"])
        if asked is not None and order(record["to"]) > order(asked):
            note(f"{record['side']}: archived to {record['to']} before, beyond {until}; nothing is taken out of it")


@command("list", "archive list", "archive list --format json")
@format_option()
def list_segments(output_format: Format) -> None:
    """Print the segments of the archive, as the manifest has them."""
    chosen = settings()
    records = [
        asdict(segment)
        for side in chosen.sides
        for segment in read_manifest(archive_folder(chosen.archive_dir, chosen.prefix, side.side), side.side).segments
    ]
    print_records(records, SEGMENT_COLUMNS, output_format, f"segments in {chosen.archive_dir}")


@command(
    "verify",
    "archive verify",
    "archive verify --head 5f2c… --side SI",
    "archive verify --format json",
    stands=ONLY_READ,
)
@click.option("--head", metavar="HASH", help="A hash that the archive of the side ended with once, as you noted it.")
@click.option("--side", metavar="SIDE", help="Only this side; needed with --head.")
@format_option()
def verify(head: str | None, side: str | None, output_format: Format) -> int:
    """Verify that every file of the archive is as it was written; needs no server.

    Names each segment that was altered, dropped, swapped, doubled or cut, and each altered line of the manifest.
    Somebody who rewrites files and manifest together, or takes the last of both away, is found out only by a head that
    was kept elsewhere: give it with --head. A server that is running keeps the one by which its log was trimmed, and
    is asked for it.
    Exit code 0: everything is as it was written; 4: it is not; 2: there is no archive of a side, or nothing in any.
    """
    # DuckDB and PyArrow are for those who archive.
    from services.archive.verify import archive_size, verify_archive  # noqa: PLC0415

    chosen = settings()
    if head is not None:
        head = head.strip().lower()
        if not re.fullmatch(r"[0-9a-f]{64}", head):
            raise UsageError("--head takes the 64 digits (0-9, a-f) that `fieldtally archive` printed for a side")
        if side is None:
            raise UsageError("--head is that of one side: name it with --side")
    sides = [chosen.side(side)] if side is not None else list(chosen.sides)
    folders = {one.side: archive_folder(chosen.archive_dir, chosen.prefix, one.side) for one in sides}
    asked = notes_of_trims(chosen, folders)
    trims = asked or {}
    without = [
        one for one, folder in folders.items() if not (_begun(folder) or chosen.archive_dir.is_file() or trims.get(one))
    ]
    if len(without) == len(folders):
        raise UsageError(
            f"there is no archive of {', '.join(without)} in {chosen.archive_dir}, so nothing was verified: set "
            "FIELDTALLY_DATA_DIR to the folder that holds `archive`, or restore it from a copy"
        )
    with progress("verifying, bytes", sum(map(archive_size, folders.values()))) as advance:
        verified = [verify_archive(folder, one, head, advance, trims.get(one)) for one, folder in folders.items()]
    records: list[dict[str, Any]] = []
    for one in verified:
        broken = {flaw.file for flaw in one.flaws}
        records += [
            {"side": one.side, "file": segment.file, "verdict": "as written"}
            for segment in one.manifest.segments
            if segment.file not in broken
        ]
        records += [{"side": flaw.side, "file": flaw.file, "verdict": flaw.wrong} for flaw in one.flaws]
        if one.side in without:
            records.append({"side": one.side, "file": MANIFEST, "verdict": "there is no archive of this side"})
    print_records(records, VERIFIED_COLUMNS, output_format, f"archive in {chosen.archive_dir}")
    flaws = [flaw for one in verified for flaw in one.flaws]
    for one in verified:
        if not one.flaws and not one.manifest.segments:
            note(f"{one.side}: nothing to verify: no entry is archived in {folders[one.side]}")
        elif not one.flaws:
            count = many(one.manifest.entries, "entry", "entries")
            note(f"{one.side}: {count} to {one.manifest.end} as written; head {one.manifest.head}")
    if flaws:
        files = {(flaw.side, flaw.file) for flaw in flaws}
        note(f"{many(len(files), 'file')} not as written: restore from a copy, then verify again")
    elif asked is not None:
        note("the server was asked, too: this is the archive that its log was trimmed by, if it was trimmed")
    else:
        note("whether that is all that the server gave up to this archive, the server knows: `fieldtally doctor`")
    if flaws:
        return DamagedLogError.exit_code
    nothing = without or not any(one.manifest.segments for one in verified)
    return UsageError.exit_code if nothing else 0


def _begun(folder: Path) -> bool:
    """Tell whether a side was ever archived in a folder: an empty one says no more than none."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


@command(
    "trim",
    "archive trim --older-than 90d",
    "archive trim --older-than 36h --side SI",
    stands="what was trimmed stands in the archive; `fieldtally archive trim` goes on from there",
)
@click.option("--older-than", required=True, metavar="AGE", help="Such as 90d or 36h: since the time of receipt.")
@click.option("--side", metavar="SIDE", help="Only this side.")
@format_option()
def trim(older_than: str, side: str | None, output_format: Format) -> None:
    """Take out of Redis what is archived, verified, counted and older than a limit.

    The archives of all these sides are verified first, and each piece compared with them before it goes; of what is
    left it says why. Replays, amendments and duplicates of old reports go on working: they are read from the archive,
    so gateway, projector and control room need its folder.
    """
    chosen = settings()
    before_ms = int((now() - _age(older_than)).timestamp() * 1_000)
    sides = [chosen.side(side)] if side is not None else list(chosen.sides)
    with server_url(chosen) as url:
        reached = replace(chosen, redis_url=url)
        entries = sum(extent.length for extent in run_async(log_extents(reached)).values())
        # All before anything goes; each once more when its turn comes, since another may have been at it meanwhile.
        run_forked({str(one.side): partial(_verify, reached, one) for one in sides})
        works = {str(one.side): partial(_trim, reached, url, one, before_ms) for one in sides}
        outcomes = run_forked(works, lambda: progress("trimming", entries))
        extents = run_async(log_extents(reached))
    records, failures = [], []
    for one, outcome in zip(sides, outcomes, strict=True):
        if isinstance(outcome, FieldtallyError):
            failures.append(outcome)
            continue
        extent = extents[one.side]
        records.append({"side": one.side, "trimmed": outcome.taken, "left": extent.length, "archived": extent.archived})
        if why := _why_left(extent, outcome.counted, older_than):
            note(f"{one.side}: {why}")
    if records or not failures:
        print_records(records, TRIMMED_COLUMNS, output_format, "trimmed")
    if failures:
        raise failures[0]


@command(
    "restore",
    "archive restore",
    "archive restore --side SI --went-on",
    stands="a side is as before, or restored; repeated, what is restored stays as it is",
)
@click.option("--side", metavar="SIDE", help="Only this side.")
@click.option(
    "--went-on", is_flag=True, help="What the server holds beyond the archive was recorded after it had lost the rest."
)
@format_option()
def restore(side: str | None, *, went_on: bool, output_format: Format) -> None:
    """Let a server that was emptied or set back go on behind its archive.

    For where there is no copy of the server's own files, which would have all that was recorded. The log becomes what
    it is after a trim of all that is archived. Reports that were recorded later and lost are not in it: a device sends
    those that it still holds again. Afterwards `fieldtally rebuild --swap` counts.
    """
    chosen = settings()
    sides = [chosen.side(side)] if side is not None else list(chosen.sides)
    folders = {one.side: archive_folder(chosen.archive_dir, chosen.prefix, one.side) for one in sides}
    archived = sum(read_manifest(folder, name).entries for name, folder in folders.items())
    if not archived:
        raise UsageError(
            f"there is no archive in {chosen.archive_dir}, so nothing was restored: set FIELDTALLY_DATA_DIR to the "
            "folder that holds `archive`"
        )
    with server_url(chosen) as url:
        reached = replace(chosen, redis_url=url)
        works = {str(one.side): partial(_restore, reached, url, one, went_on=went_on) for one in sides}
        outcomes = run_forked(works, lambda: progress("comparing", archived))
    done = {one.side: each for one, each in zip(sides, outcomes, strict=True) if not isinstance(each, FieldtallyError)}
    records = [
        {"side": name, "restored": one.restored, "to": one.to, "recorded_since": one.recorded_since}
        for name, one in done.items()
    ]
    if records:
        print_records(records, RESTORED_COLUMNS, output_format, "restored")
    for name, one in done.items():
        if one.restored:
            note(
                f"{name}: what had been recorded after {one.to} and was lost is in no archive: devices that still hold "
                "it send it again; `fieldtally rebuild --swap` counts what is here"
            )
        else:
            note(f"{name}: the server's log has all that is archived: nothing to restore")
    failures = [each for each in outcomes if isinstance(each, FieldtallyError)]
    if failures:
        raise failures[0]


archive.add_command(list_segments)
archive.add_command(verify)
archive.add_command(trim)
archive.add_command(restore)


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,5})([dh])", text)
    if not found:
        raise UsageError(f"--older-than {text!r}: a number of days or hours, such as 90d or 36h")
    return int(found[1]) * _UNITS[found[2]]


def _write(
    chosen: Settings, url: str, side: SideSettings, until: Position | None, advance: Advance
) -> Sequence[Segment]:
    from services.archive.writer import archive_log  # noqa: PLC0415  # see verify

    return run_loop(_on(chosen, url, side, lambda log, _: archive_log(log.stream, log.archive, until, advance)))


class _Taken(NamedTuple):
    """How many entries went, and how many the live tallies had counted."""

    taken: int
    counted: int


def _trim(chosen: Settings, url: str, side: SideSettings, before_ms: int, advance: Advance) -> _Taken | FieldtallyError:
    """Trim one side; what keeps it from that is returned, and the others go on."""
    from services.archive.trim import trim_log  # noqa: PLC0415  # see verify

    async def work(log: WholeLog, client: Client) -> _Taken:
        store = RedisTallyStore(client, url, PartitionKeys(chosen.prefix, side.side))
        counted = (await load_fitting(side, log, store)).checkpoint
        taken = await trim_log(log.stream, log.archive, counted.position, before_ms, advance)
        return _Taken(taken, counted.entries)

    try:
        return run_loop(_on(chosen, url, side, work))
    except FieldtallyError as error:
        return error


def _verify(chosen: Settings, side: SideSettings, _: Advance) -> None:
    from services.archive.trim import require_as_written  # noqa: PLC0415  # see verify

    require_as_written(archive_folder(chosen.archive_dir, chosen.prefix, side.side), side.side, "nothing is trimmed")


def _restore(
    chosen: Settings, url: str, side: SideSettings, advance: Advance, *, went_on: bool
) -> Restored | FieldtallyError:
    """Restore one side; what keeps it from that is returned, and the others go on."""
    from services.archive.restore import restore_log  # noqa: PLC0415  # see verify

    async def work(log: WholeLog, client: Client) -> Restored:
        generations = RedisGenerations(client, url, PartitionKeys(chosen.prefix, side.side))
        live = await generations.look(await generations.live())
        return await restore_log(log.stream, log.archive, live.position or START, went_on=went_on, on_progress=advance)

    try:
        return run_loop(_on(chosen, url, side, work))
    except FieldtallyError as error:
        return error


def _why_left(extent: LogExtent, counted: int, older_than: str) -> str:
    """Say why a stream still holds what it holds; the empty string if it holds nothing."""
    to_archive = min(extent.length, max(0, extent.entries - extent.archived))
    to_count = min(extent.length - to_archive, max(0, extent.archived - counted))
    younger = extent.length - to_archive - to_count
    reasons = [
        f"{to_archive:,} not archived yet (`fieldtally archive`)" if to_archive else "",
        f"{to_count:,} not in the live tallies yet (is `fieldtally project` running?)" if to_count else "",
        f"{younger:,} younger than {older_than}" if younger else "",
    ]
    if not extent.entries:
        return "nothing to trim: the log is empty"
    return f"left in Redis: {', '.join(filter(None, reasons))}" if extent.length else ""


async def _on(
    chosen: Settings, url: str, side: SideSettings, work: Callable[[WholeLog, Client], Coroutine[Any, Any, Result]]
) -> Result:
    """Do a piece of work on a side's log, on a connection of its own."""
    client = connect(url)
    try:
        return await work(open_log(client, url, PartitionKeys(chosen.prefix, side.side), chosen.archive_dir), client)
    finally:
        await client.aclose()
