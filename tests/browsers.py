"""A real Chromium for tests of what runs in one: skipped where none is installed, failed where one is required."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from playwright.sync_api import BrowserType, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Chromium:
    """The browser that is installed. `options` are for `kind.launch` and `kind.launch_persistent_context`."""

    def __init__(self, kind: BrowserType, executable: str) -> None:
        self.kind = kind
        self.options = {"executable_path": executable, "args": ARGUMENTS}


def chromium_executable() -> str:
    """Return where Chromium is: what FIELDTALLY_TEST_CHROMIUM says, or the first on the path.

    Where there is none the test is skipped; with CI_REQUIRES_BROWSER=1, as in `.ci/run`, it fails.
    """
    for name in (os.environ.get("FIELDTALLY_TEST_CHROMIUM"), *NAMES):
        found = shutil.which(name) if name else None
        if found:
            return found
    reason = (
        f"no browser is installed: none of {', '.join(NAMES)} is on the path; FIELDTALLY_TEST_CHROMIUM may name one"
    )
    if os.environ.get("CI_REQUIRES_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Yield the installed Chromium, not yet started.

    Playwright's own event loop runs in this thread as long as this lasts, so `asyncio.run` belongs in another one.
    """
    executable = chromium_executable()
    with sync_playwright() as playwright:
        yield Chromium(playwright.chromium, executable)
