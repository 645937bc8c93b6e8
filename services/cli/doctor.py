"""`doctor`: looks at everything that Fieldtally needs, and says what is wrong and what to do."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import asdict

from schemas.screen import AuditShown
from schemas.tallies import Checkpoint
from schemas.vocabulary import Side, order
from services.cli.command import command, misspelt_settings, run_async, settings
from services.cli.output import Format, format_option, many, print_records, progress
from services.cli.requeue import requeued_of
from services.cli.server import SideStore, side_stores
from services.runtime.errors import DamagedLogError, FieldtallyError, UnsoundTalliesError, UsageError
from services.runtime.settings import Settings, SideSettings, hide_password
from services.store.contract import LogExtent, Trimmed
from services.store.generations import number
from services.store.loading import require_zone
from services.store.segments import archive_folder
from services.store.tally_store import REBUILD
from services.tally.cells import Tallies
from services.tally.digest import state_digest
from services.tally.fold import FOLD_VERSION
from services.tally.numbers import missing_count

State = Literal["ok", "look", "wrong"]

RUNNING: Final = "is `fieldtally project` running?"
COLUMNS: Final = ("state", "what", "found", "next_step")


class Finding(Struct, frozen=True):
    """One thing that was looked at: `ok`, worth a `look`, or `wrong`; and the exit code it asks for."""

    state: State
    what: str
    found: str
    next_step: str = ""
    exit_code: int = 0


@command("doctor", "doctor", "doctor --format json")
@format_option()
def doctor(output_format: Format) -> int:
    """Check settings, server, logs, tallies and archive.

    Exit code 0: nothing is wrong; 1: something is; 3: the server cannot be reached; 4: a log has lost entries.
    """
    chosen = settings()
    trims: dict[Side, Trimmed] = {}
    findings = [*run_async(_examine(chosen, trims)), *_archives(chosen, trims)]
    records = [{name: asdict(finding)[name] for name in COLUMNS} for finding in findings]
    print_records(records, COLUMNS, output_format, "doctor")
    return max(finding.exit_code for finding in findings)


def _archives(chosen: Settings, trims: Mapping[Side, Trimmed]) -> Iterator[Finding]:
    """Verify the archive of each side that has one, also against what the server has noted of its trims."""
    folders = {one.side: archive_folder(chosen.archive_dir, chosen.prefix, one.side) for one in chosen.sides}
    if not trims and not any(folder.exists() for folder in folders.values()):
        return
    # PyArrow is for those who have an archive.
    from services.archive.verify import archive_size, verify_archive  # noqa: PLC0415

    with progress("verifying, bytes", sum(map(archive_size, folders.values()))) as advance:
        verified = [verify_archive(folder, side, None, advance, trims.get(side)) for side, folder in folders.items()]
    for one in verified:
        what = f"{one.side} archive"
        if one.flaws:
            found = f"{one.flaws[0].file}: {one.flaws[0].wrong}"
            step = "`fieldtally archive verify` names every file; restore them from a copy"
            yield Finding("wrong", what, found, step, DamagedLogError.exit_code)
        elif one.manifest.segments:
            yield Finding("ok", what, f"{many(len(one.manifest.segments), 'segment')} as written")


async def _examine(chosen: Settings, trims: dict[Side, Trimmed]) -> list[Finding]:
    """Look at server, logs and tallies; `trims` takes what the server has noted of those of the logs."""
    server = hide_password(chosen.redis_url) if chosen.redis_url else f"embedded, in {chosen.data_dir}"
    findings = [
        Finding("ok", "python", platform.python_version()),
        Finding("ok", "sides", ", ".join(f"{one.side} ({one.zone.key})" for one in chosen.sides)),
    ]
    findings += [
        Finding("look", "settings", f"{name} is set", "there is no such setting: is it misspelt?")
        for name in misspelt_settings()
    ]
    try:
        async with side_stores(chosen, reading=True) as stores:
            findings += _server(server, await stores[0].log.stream.server_info())
            requeued = Counter(side for side, _ in await requeued_of(stores))
            for store in stores:
                with suppress(FieldtallyError):  # it is said of the log
                    if trimmed := await store.log.stream.trimmed():
                        trims[store.side.side] = trimmed
                findings += await _side(store, requeued[store.side.side])
                findings += await _generations(store)
    except FieldtallyError as error:
        findings.append(Finding("wrong", "server", server, str(error), error.exit_code))
    return findings


def _server(server: str, info: dict[str, Any]) -> Iterator[Finding]:
    name = "Valkey " + str(info["valkey_version"]) if "valkey_version" in info else f"Redis {info['redis_version']}"
    yield Finding("ok", "server", f"{name}, {server}")
    yield Finding("ok", "maxmemory-policy", str(info.get("maxmemory_policy")))
    if info.get("aof_enabled"):
        yield Finding("ok", "append-only file", "on")
    else:
        yield Finding("look", "append-only file", "off", "set `appendonly yes`, or a restart loses what came last")
    if info.get("role") != "master":
        yield Finding("wrong", "role", str(info.get("role")), "point FIELDTALLY_REDIS_URL at the primary", 1)


async def _side(store: SideStore, requeued: int) -> list[Finding]:
    side = store.side.side
    try:
        extent = await store.log.extent()
        stored = await store.store.load()
    except UnsoundTalliesError as error:
        damaged = Finding("wrong", f"{side} tallies", "damaged", str(error), error.exit_code)
        return [_log(side, extent, Checkpoint()), damaged]
    except FieldtallyError as error:
        return [Finding("wrong", f"{side} log", "cannot be read", str(error), error.exit_code)]
    checkpoint = stored.checkpoint or Checkpoint(fold_version=FOLD_VERSION)
    findings = [
        _log(side, extent, checkpoint),
        _tallies(store.side, extent, stored.checkpoint),
        *_audited(side, await store.glance.audit(), checkpoint, stored.tallies),
    ]
    parked = checkpoint.counters.parked
    if parked:
        found = many(parked, "entry", "entries") + (f", {requeued:,} of them requeued" if requeued else "")
        state: State = "look" if parked > requeued else "ok"
        findings.append(Finding(state, f"{side} parked", found, "`fieldtally parked list`"))
    missing = {device: count for device, numbers in stored.devices.items() if (count := missing_count(numbers))}
    if missing:
        worst = max(missing, key=lambda device: missing[device])
        found = f"{many(sum(missing.values()), 'number')} of {many(len(missing), 'device')}, most of {worst}"
        findings.append(Finding("look", f"{side} missing reports", found, "ask these units to send what they hold"))
    if checkpoint.counters.number_reused:
        worst = max(stored.devices, key=lambda device: stored.devices[device].reused)
        found = f"{many(checkpoint.counters.number_reused, 'report')} with a number used before, most by {worst}"
        findings.append(Finding("look", f"{side} numbers", found, "a device was set back, or two share a name"))
    if checkpoint.counters.original_missing:
        found = f"{many(checkpoint.counters.original_missing, 'amended report')} whose original has not come"
        findings.append(
            Finding(
                "look",
                f"{side} amendments",
                found,
                "they count; an original is still to come, or `amends` names an amendment or another side's report",
            )
        )
    return findings


async def _generations(store: SideStore) -> list[Finding]:
    """Look for generations that are not live: each holds as much memory as the live one."""
    try:
        live, found = await store.generations.live(), await store.generations.found()
    except FieldtallyError:
        return []  # it was said of the log already
    beside = [one for one in found if one.name != live]
    if not beside:
        return []
    names = ", ".join(f"{one.name} ({many(one.entries, 'entry', 'entries')})" for one in beside)
    next_step = "`fieldtally rebuild --drop` removes what is not live"
    if number(beside[-1].name) > number(live):
        next_step += f"; `fieldtally rebuild` goes on with {beside[-1].name}"
    return [Finding("look", f"{store.side.side} generations", f"beside {live}: {names}", next_step)]


def _audited(side: str, audit: AuditShown | None, checkpoint: Checkpoint, tallies: Tallies) -> Iterator[Finding]:
    """Hold the tallies against what the last audit found equal: no cell is compared with the log here."""
    if audit is None:
        return
    if audit.position == checkpoint.position and audit.digest != state_digest(tallies):
        found = f"other tallies at {audit.position} than those that were found equal to the log there"
        yield Finding("wrong", f"{side} audit", found, "`fieldtally audit` names the cells", 1)
        return
    yield Finding("ok", f"{side} audit", f"last found equal to the log at {audit.position}, {audit.at:%Y-%m-%dT%H:%M}Z")


def _log(side: str, extent: LogExtent, checkpoint: Checkpoint) -> Finding:
    damage = DamagedLogError.exit_code
    if lacking := extent.lacks(checkpoint):
        return Finding("wrong", f"{side} log", lacking, "entries were lost: restore the log from a copy", damage)
    if extent.mixed:
        found = f"{extent.archived:,} entries in an archive that the log of this server never held all of"
        return Finding("wrong", f"{side} log", found, extent.mixed, damage)
    if extent.lost:
        found = f"{extent.lost:,} of {many(extent.appended, 'entry', 'entries')} gone"
        return Finding("wrong", f"{side} log", found, "no replay is possible: restore the log from a copy", damage)
    archived = f", {extent.archived:,} of them archived" if extent.archived else ""
    return Finding("ok", f"{side} log", f"{many(extent.entries, 'entry', 'entries')} to {extent.last}{archived}")


def _tallies(side: SideSettings, extent: LogExtent, checkpoint: Checkpoint | None) -> Finding:
    what = f"{side.side} tallies"
    if extent.apart and not checkpoint:
        found = "none: this server has an archive and no log"
        return Finding("ok", what, f"{found}; `audit`, `replay`, `stats`, `events` and `sql` read the archive")
    if not checkpoint:
        if extent.entries:
            found = f"none, and {many(extent.entries, 'entry', 'entries')} in the log"
            return Finding("look", what, found, REBUILD if extent.beyond(Checkpoint()) else RUNNING)
        return Finding("ok", what, "none yet: nothing was recorded")
    try:
        require_zone(side, checkpoint)
    except UsageError as error:
        return Finding("wrong", what, f"days counted in {checkpoint.zone}", str(error), error.exit_code)
    if checkpoint.fold_version != FOLD_VERSION:
        found = f"made by counting rules version {checkpoint.fold_version}, this program has {FOLD_VERSION}"
        return Finding("wrong", what, found, f"{REBUILD}, then start `fieldtally project`", 1)
    behind = extent.appended - checkpoint.entries
    if behind <= 0 and order(checkpoint.position) < order(extent.last):
        found = f"at {checkpoint.position} with every entry counted, but the log goes on to {extent.last}"
        return Finding("wrong", what, found, f"somebody set them back: {REBUILD}", 1)
    if behind > 0:
        next_step = REBUILD if extent.beyond(checkpoint) else RUNNING
        return Finding("look", what, f"{many(behind, 'entry', 'entries')} behind the log", next_step)
    return Finding(
        "ok",
        what,
        f"at {checkpoint.position}, nothing behind; whether the cells are right, only `fieldtally audit` says",
    )
