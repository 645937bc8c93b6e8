"""A data folder that is full or forbidden: folder, reason and next step are said, and nothing is half done."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.services.cli.conftest import PROGRAM, ROOT, environ

# In a namespace of its own, where whoever runs the tests may mount a disk of a few pages. What is left of it is filled.
SMALL_DISK = """
set -e
mount -t tmpfs -o size=256k tmpfs "$1"
fill() {{ dd if=/dev/zero of="$1/fill" bs=4k oflag=append conv=notrunc 2>/dev/null || true; }}
{before}
fill "$1"
exec {program} devices enrol SI-MP-07 --format json
"""


def on_a_full_disk(folder: Path, before: str = ":") -> subprocess.CompletedProcess[str]:
    script = SMALL_DISK.format(before=before, program=" ".join(PROGRAM))
    env = environ("", "ft", DATA_DIR=str(folder / "data"))
    folder.mkdir()
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder)],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no disk of its own can be had here: {done.stderr.strip()}")
    return done


def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path) -> None:
    done = on_a_full_disk(tmp_path / "disk")
    assert (3, "") == (done.returncode, done.stdout)
    assert done.stderr == (
        f"fieldtally: the embedded server did not come up; in {tmp_path}/disk/data the disk is full: make room there\n"
    )


def test_a_disk_that_fills_up_is_named_and_not_an_address_that_nobody_has_set(tmp_path: Path) -> None:
    """The server ends at the first write that it cannot keep, and no token is given out that would not be known."""
    done = on_a_full_disk(tmp_path / "disk", before=f"{' '.join(PROGRAM)} devices list >/dev/null 2>&1")
    assert (3, "") == (done.returncode, done.stdout)
    assert done.stderr == (
        f"fieldtally: the embedded server has ended; in {tmp_path}/disk/data the disk is full: make room there\n"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a file of somebody else")
@pytest.mark.parametrize("whose", [".", "valkey.log", "users.lock"])
def test_a_folder_without_rights_is_named_with_the_setting(tmp_path: Path, whose: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / whose).touch()
    folder.chmod(0o777)
    (folder / whose).chmod(0o500)
    os.chown(folder / whose, 65_534, 65_534)
    without_powers = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run(
        [*without_powers, *PROGRAM, "devices", "list"], cwd=ROOT, env=environ("", "ft", DATA_DIR=str(folder)),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (2, "") == (done.returncode, done.stdout), done.stderr
    assert done.stderr == (
        f"fieldtally: cannot keep data in {folder}: Permission denied; "
        "set FIELDTALLY_DATA_DIR to a folder that you may write to\n"
    )
