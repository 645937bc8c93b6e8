"""Keeps the embedded server for exactly as long as somebody uses its folder; run as a process of its own.

`embedded.py` starts it by its path, isolated and without site-packages, so that it is up within a few hundredths of
a second: it must import nothing beyond the standard library, and little of that. Why it and its locks are safe is
told in `embedded.py`.

No restart of a server that died: this process ends with it. Who would restart this one, if it is killed? The users
that run long look after both, and the next user starts one too.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
# Looked up here: it is called between fork and exec, where nothing may wait for a lock of a thread that is not there.
_libc = ctypes.CDLL(None)


def keep(keeper_lock: int, server_lock: int, command: list[str]) -> NoReturn:
    """Run `command` in the current folder until nobody holds `users.lock` any more.

    Args:
        keeper_lock: descriptor of the held `keeper.lock`; it goes with this process.
        server_lock: descriptor of the held `server.lock`; it goes with the server.
        command: the server and its options.

    """
    # A mask is inherited through exec: a user that blocks SIGTERM would make a server that cannot be stopped.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Whoever started us waits for this first process only. The keeper is nobody's child, hence nobody's zombie.
    if os.fork():
        os._exit(0)
    os.set_inheritable(keeper_lock, False)
    users_lock = os.open("users.lock", os.O_RDWR)
    keeper = os.getpid()
    # For people only, who want to know which process it is.
    os.ftruncate(keeper_lock, 0)
    os.pwrite(keeper_lock, b"%d" % keeper, 0)
    server = os.fork()
    if server == 0:
        _become_server(keeper, server_lock, command)
    os.close(server_lock)
    # Another thread waits for the users, so that this one sees the server end by itself. The server was forked by
    # this thread, which lives as long as the process: PDEATHSIG follows the thread, not the process.
    _thread.start_new_thread(_stop_when_unused, (users_lock, server))
    os.waitpid(server, 0)
    os._exit(0)


def end_with_parent() -> None:
    """Have this process ended by SIGTERM when its parent ends, however that ends; only Linux can do it."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop_when_unused(users_lock: int, server: int) -> None:
    # Never given back: nobody may begin to use a server that is going. It falls with this process.
    fcntl.flock(users_lock, fcntl.LOCK_EX)
    with suppress(ProcessLookupError):  # it ended by itself just now, and so does this process
        os.kill(server, signal.SIGTERM)


def _become_server(keeper: int, server_lock: int, command: list[str]) -> NoReturn:
    try:
        # A keeper that is killed takes its server with it. Elsewhere the next user finds the server left behind.
        end_with_parent()
        if os.getppid() != keeper:
            os._exit(1)
        # Written by the server itself: a process id by somebody else could be missing when that somebody is killed.
        os.pwrite(server_lock, b"%d" % os.getpid(), 0)
        os.execv(command[0], command)  # noqa: S606  # no shell is wanted
    except BaseException:  # noqa: BLE001  # whatever it is, this copy of the keeper must not go on as one
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    keep(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
