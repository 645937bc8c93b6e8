"""The embedded server is there while anybody uses its folder, once, and loses nothing however anybody ends."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from services.runtime import embedded
from services.runtime.embedded import embedded_server, restarting
from services.runtime.errors import UnreachableError, UsageError
from tests.projectors import Lines
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]

# A user in a process of its own: comes at the first line of its input and leaves at the second.
USER = """
import sys
from pathlib import Path
from services.runtime.embedded import embedded_server
print("ready", flush=True)
sys.stdin.readline()
with embedded_server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.readline()
print("left", flush=True)
sys.stdin.readline()
"""


class User:
    """The test's end of such a process."""

    def __init__(self, folder: Path, code: str = USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def hear(self) -> str:
        """Return the next line it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it go on to its next step."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")

    def come(self) -> str:
        """Let it begin to use the server; return the address."""
        assert self.hear() == "ready"
        self.go_on()
        return self.hear()

    def leave(self) -> None:
        """Let it leave the server; the process stays."""
        self.go_on()
        assert self.hear() == "left"

    def kill(self) -> None:
        """End it as the kernel does."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def new_user(folder: Path) -> Iterator[Callable[[], User]]:
    """Make users that end with the test."""
    with ExitStack() as ending:

        def make() -> User:
            user = User(folder)
            ending.enter_context(user.process)  # closes its pipes and waits for it
            ending.callback(user.process.kill)
            return user

        yield make


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Take what is logged by those who look after the server, and let them look more often."""
    monkeypatch.setattr(embedded, "_LOOK_S", 0.01)
    return Lines()


@contextmanager
def client_of(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client


def run_id(url: str) -> str:
    with client_of(url) as client:
        return str(client.info("server")["run_id"])


def answers(url: str) -> str:
    """Return the server's id, or nothing from one that does not serve."""
    try:
        return run_id(url)
    except redis.RedisError:
        return ""


def starts(folder: Path) -> int:
    return (folder / "valkey.log").read_text().count("Ready to accept connections")


def process_in(lock: Path) -> int:
    return int(lock.read_bytes())


def is_free(lock: Path) -> bool:
    if not lock.exists():  # told to end before it came to that
        return True
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def wait_until_all_gone(folder: Path) -> None:
    # The kernel's word: a process that is a zombie, or whose number is in use again, counts as gone.
    wait_for(lambda: is_free(folder / "keeper.lock") and is_free(folder / "server.lock"), what="server and keeper gone")


def test_the_first_user_starts_a_server_that_answers(folder: Path) -> None:
    """The folder is made for its owner only, and the address leads to a server."""
    with embedded_server(folder) as url:
        assert url == f"unix://{folder}/valkey.sock"
        with client_of(url) as client:
            assert client.ping()
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_settings_are_in_force(folder: Path) -> None:
    """What was acknowledged is on the disk, nothing is ever evicted, and nobody reaches it by network."""
    with embedded_server(folder) as url, client_of(url) as client:
        in_force = client.config_get()
    expected = {
        "port": "0",
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": "valkey.log",
        "loglevel": "notice",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "16384",
    }
    assert {name: in_force[name] for name in expected} == expected


def test_its_files_are_private_in_a_folder_that_is_not(folder: Path) -> None:
    """A folder that somebody made readable for all does not give the reports away."""
    folder.mkdir(mode=0o755)
    with embedded_server(folder) as url, client_of(url) as client:
        client.set("key", "value")
        assert [path for path in folder.rglob("*") if path.stat().st_mode & 0o077] == []


def test_data_outlives_the_server(folder: Path) -> None:
    """A user after the last finds everything, whether the old server is there, ending or gone."""
    for number in range(10):
        with embedded_server(folder) as url, client_of(url) as client:
            assert client.incr("count") == number + 1


def test_users_share_one_server_until_the_last_has_left(folder: Path, new_user: Callable[[], User]) -> None:
    """The one who started it may leave first."""
    first, second = new_user(), new_user()
    url = first.come()
    assert second.come() == url
    server = run_id(url)
    first.leave()
    assert run_id(url) == server
    second.leave()
    wait_until_all_gone(folder)
    assert starts(folder) == 1
    assert not (folder / "valkey.sock").exists()


def test_users_in_one_process_share_as_well(folder: Path) -> None:
    """Threads come and go as processes do."""

    def come_and_go(_: int) -> str:
        with embedded_server(folder) as url:
            return run_id(url)

    with embedded_server(folder) as url, ThreadPoolExecutor(4) as threads:
        assert set(threads.map(come_and_go, range(20))) == {run_id(url)}


def test_a_killed_user_takes_the_server_along(folder: Path, new_user: Callable[[], User]) -> None:
    """SIGKILL runs no code of ours; the server ends all the same, with its data on the disk."""
    user = new_user()
    with client_of(user.come()) as client:
        client.set("key", "value")
    user.kill()
    wait_until_all_gone(folder)
    with embedded_server(folder) as url, client_of(url) as client:
        assert client.get("key") == "value"


def test_a_killed_user_does_not_disturb_the_others(folder: Path, new_user: Callable[[], User]) -> None:
    """The server serves on for those who are left."""
    first, second = new_user(), new_user()
    url = first.come()
    second.come()
    server = run_id(url)
    first.kill()
    assert run_id(url) == server
    assert not is_free(folder / "users.lock")


def test_an_exception_leaves_as_well(folder: Path) -> None:
    """However the block is left, its user is gone."""
    with pytest.raises(ZeroDivisionError), embedded_server(folder):
        _ = 1 / 0
    wait_until_all_gone(folder)


def test_children_of_a_user_do_not_keep_the_server(folder: Path) -> None:
    """A command that a user ran and that outlives it is no user, whatever descriptors it was given."""
    code = USER.replace(
        "    sys.stdin.readline()\n",
        "    import subprocess\n"
        "    child = subprocess.Popen(['sleep', '100'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.readline()\n",
    )
    user = User(folder, code)
    with user.process:
        user.come()
        child = int(user.hear())
        user.kill()
    try:
        wait_until_all_gone(folder)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_does_not_end_its_parents_use(folder: Path) -> None:
    """The copy of the block in a forked child belongs to the parent."""
    code = USER.replace(
        "    sys.stdin.readline()\n",
        "    import os\n"
        "    child = os.fork()\n"
        "    if child == 0: raise SystemExit\n"
        "    os.waitpid(child, 0)\n"
        "    print('forked', flush=True)\n"
        "    sys.stdin.readline()\n",
    )
    user = User(folder, code)
    with user.process:
        url = user.come()
        assert user.hear() == "forked"
        assert not is_free(folder / "users.lock")
        assert run_id(url)
        user.leave()
        wait_until_all_gone(folder)
        user.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server stays until the next user comes")
def test_a_killed_keeper_takes_the_server_along(folder: Path) -> None:
    """The server does not stay behind, and the next user starts another although the former is still there."""
    with embedded_server(folder) as url, client_of(url) as client:
        client.set("key", "value")
        server = run_id(url)
        os.kill(process_in(folder / "keeper.lock"), signal.SIGKILL)
        wait_until_all_gone(folder)
        with embedded_server(folder) as next_url, client_of(next_url) as next_client:
            assert run_id(next_url) != server
            assert next_client.get("key") == "value"
    wait_until_all_gone(folder)


def test_a_new_user_never_gets_the_server_of_a_killed_keeper(folder: Path) -> None:
    """Not even when it comes while that server is still ending."""
    for number in range(10):
        with embedded_server(folder) as url, client_of(url) as client:
            assert client.incr("count") == 2 * number + 1
            os.kill(process_in(folder / "keeper.lock"), signal.SIGKILL)
            wait_for(lambda: is_free(folder / "keeper.lock"), what="the keeper's death")
            with embedded_server(folder) as next_url, client_of(next_url) as next_client:
                assert next_client.incr("count") == 2 * number + 2


def test_a_server_left_behind_is_ended_first(folder: Path) -> None:
    """Where the server outlives its keeper, the next user ends it and only then starts its own."""
    with embedded_server(folder):
        pass
    wait_until_all_gone(folder)
    with (folder / "server.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = [word for name, value in embedded.SERVER_SETTINGS.items() for word in (f"--{name}", value)]
        stray = subprocess.Popen([embedded._server_binary(), *options], cwd=folder, pass_fds=[lock.fileno()])
        lock.truncate()
        lock.write(str(stray.pid))
    with stray, ExitStack() as ending:
        ending.callback(stray.kill)
        wait_for(lambda: embedded._serves(folder / "valkey.sock", folder / "server.lock"), what="the stray server")
        with client_of(f"unix://{folder}/valkey.sock") as client:
            client.set("key", "value")
        with embedded_server(folder) as url, client_of(url) as client:
            assert stray.wait() == 0
            assert client.get("key") == "value"


def test_a_killed_server_leaves_nothing_in_the_way(folder: Path) -> None:
    """As after a power cut: the socket and the process id of the dead are still there."""
    with embedded_server(folder) as url, client_of(url) as client:
        client.set("key", "value")
        os.kill(process_in(folder / "server.lock"), signal.SIGKILL)
        wait_until_all_gone(folder)
        assert (folder / "valkey.sock").is_socket()
    with embedded_server(folder) as url, client_of(url) as client:
        assert client.get("key") == "value"


def test_a_server_that_dies_is_started_again_for_those_who_run_long(folder: Path, lines: Lines) -> None:
    """Whether it is killed itself or its keeper is, a few times."""
    with embedded_server(folder) as url, client_of(url) as client, restarting(folder, lines.logger()):
        for number in range(6):
            assert client.incr("count") == number + 1
            os.kill(process_in(folder / ("keeper.lock" if number % 2 else "server.lock")), signal.SIGKILL)
            wait_for(lambda: len(lines.named("server_restarted")) == number + 1, what="another server")  # noqa: B023
            assert run_id(url)
    wait_until_all_gone(folder)
    assert starts(folder) == 7


def test_users_who_look_after_it_at_once_share_one_server(folder: Path, lines: Lines) -> None:
    """Eight of them: whoever is first starts it, the others join."""
    with ExitStack() as users:
        for _ in range(8):
            url = users.enter_context(embedded_server(folder))
            users.enter_context(restarting(folder, lines.logger()))
        for number in range(5):
            server = run_id(url)
            os.kill(process_in(folder / "server.lock"), signal.SIGKILL)
            wait_for(lambda server=server: answers(url) not in (server, ""), what="another server")  # type: ignore[misc]
            wait_for(lambda: not is_free(folder / "keeper.lock"), what="its keeper")
            assert starts(folder) == number + 2


def test_a_server_that_cannot_live_is_tried_after_growing_pauses(folder: Path, lines: Lines) -> None:
    """With its last words each time; and once what was wrong is mended, it serves again."""
    with embedded_server(folder) as url, restarting(folder, lines.logger()):
        with client_of(url) as client:
            client.set("key", "value")
        [log] = (folder / "appendonlydir").glob("*.incr.aof")
        sound = log.read_bytes()
        log.write_bytes(b"no such thing\r\n")
        os.kill(process_in(folder / "server.lock"), signal.SIGKILL)
        wait_for(lambda: len(lines.named("server_not_restarted")) == 4, what="four tries")
        log.write_bytes(sound)
        wait_for(lambda: lines.named("server_restarted"), what="a server that lives")
        with client_of(url) as client:
            assert client.get("key") == "value"
    failures = lines.named("server_not_restarted")
    pauses = [failure["wait_s"] for failure in failures]
    assert pauses == [2 * embedded._LOOK_S * 2**number for number in range(len(failures))]
    assert all("Bad file format" in failure["reason"] for failure in failures)


def test_who_leaves_does_not_wait_for_a_server_that_does_not_come(folder: Path, lines: Lines) -> None:
    """Told to end while a long log loads, or while another still holds the files."""
    with embedded_server(folder), (folder / "server.lock").open() as held:
        with restarting(folder, lines.logger()):
            os.kill(process_in(folder / "server.lock"), signal.SIGKILL)
            fcntl.flock(held, fcntl.LOCK_EX)
            wait_for(lambda: lines.named("server_ended"), what="the look after it")
        assert not lines.named("server_restarted")
        assert not lines.named("server_not_restarted")


def test_a_folder_that_is_taken_away_is_said_and_not_at_every_look(folder: Path, lines: Lines) -> None:
    with embedded_server(folder), restarting(folder, lines.logger()):
        folder.rename(folder.with_name("elsewhere"))
        wait_for(lambda: len(lines.named("server_not_restarted")) == 3, what="three looks")
        folder.with_name("elsewhere").rename(folder)
    first, second, *_ = lines.named("server_not_restarted")
    assert f"cannot keep data in {folder}: No such file or directory" in first["reason"]
    assert second["wait_s"] == 2 * first["wait_s"]


def test_a_torn_last_write_does_not_keep_it_from_starting(folder: Path) -> None:
    """What was not acknowledged may be missing; what was is there."""
    with embedded_server(folder) as url, client_of(url) as client:
        client.set("key", "value")
        os.kill(process_in(folder / "server.lock"), signal.SIGKILL)
        wait_until_all_gone(folder)
    [log] = (folder / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    with embedded_server(folder) as url, client_of(url) as client:
        assert client.get("key") == "value"


def test_users_who_come_at_once_share_one_server(folder: Path, new_user: Callable[[], User]) -> None:
    """Ten rounds of two processes that start together."""
    for number in range(10):
        users = new_user(), new_user()
        assert [user.hear() for user in users] == ["ready", "ready"]
        for user in users:
            user.go_on()
        servers = {run_id(user.hear()) for user in users}
        assert len(servers) == 1
        assert starts(folder) == number + 1
        for user in users:
            user.leave()
        wait_until_all_gone(folder)


def test_users_who_come_while_the_server_ends_lose_nothing(folder: Path) -> None:
    """Two processes that come and go twenty times each, at every moment of a start and a stop."""
    code = """
import sys, redis
from pathlib import Path
from services.runtime.embedded import embedded_server
for _ in range(20):
    with embedded_server(Path(sys.argv[1])) as url, redis.Redis.from_url(url) as client:
        client.incr("count")
"""
    users = [User(folder, code) for _ in range(2)]
    for user in users:
        with user.process:
            assert user.process.wait(120) == 0
    with embedded_server(folder) as url, client_of(url) as client:
        assert client.get("count") == "40"


def test_the_keys_of_a_terminal_do_not_reach_the_server(folder: Path) -> None:
    """Server and keeper are in a session without a terminal, so Ctrl-C is the user's alone."""
    with embedded_server(folder):
        session = os.getsid(process_in(folder / "server.lock"))
        assert session == os.getsid(process_in(folder / "keeper.lock"))
        assert session != os.getsid(0)


@pytest.fixture
def short_temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a temp folder for the links, as short as the system's own."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    yield made
    shutil.rmtree(made)


def test_a_long_path_is_reached_by_a_short_one(tmp_path: Path, short_temp: Path) -> None:
    """An address of a socket has room for about a hundred bytes; the socket stays in its folder."""
    folder = tmp_path / ("long " * 30) / "data"
    for _ in range(2):
        with embedded_server(folder) as url, client_of(url) as client:
            assert client.ping()
            assert url.startswith(f"unix://{short_temp}/")
            assert (folder / "valkey.sock").is_socket()
    assert [link.readlink() for link in short_temp.iterdir()] == [folder]


def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path: Path, short_temp: Path) -> None:
    """Somebody else could have made it, to hear our reports."""
    folder = tmp_path / ("x" * 120)
    with embedded_server(folder):
        [link] = short_temp.iterdir()
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="FIELDTALLY_DATA_DIR"), embedded_server(folder):
        pass


def test_a_path_with_signs_is_quoted_in_the_address(tmp_path: Path) -> None:
    """An address has its own meaning for some signs of a path."""
    with embedded_server(tmp_path / "a b?c#d%25\"'é") as url, client_of(url) as client:
        assert client.ping()


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(folder: Path) -> None:
    """The error names the path and the setting to change."""
    folder.touch()
    for path in (folder, folder / "below"):
        with pytest.raises(UsageError, match=rf"{path}: .*; set FIELDTALLY_DATA_DIR"), embedded_server(path):
            pass


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_a_usage_error(folder: Path) -> None:
    """The error names the path and the setting to change."""
    folder.mkdir(mode=0o500)
    with pytest.raises(UsageError, match=rf"{folder}: .*; set FIELDTALLY_DATA_DIR"), embedded_server(folder):
        pass


def test_a_platform_without_a_server_is_a_usage_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting for a server from elsewhere."""
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [])
    with pytest.raises(UsageError, match="set FIELDTALLY_REDIS_URL"), embedded_server(folder):
        pass


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    """The error ends with the last line of the log and names the log; the folder is free again."""
    with embedded_server(folder) as url, client_of(url) as client:
        client.set("key", "value")
    wait_until_all_gone(folder)
    [log] = (folder / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"no such thing\r\n")
    with pytest.raises(UnreachableError, match=rf"{folder}/valkey\.log: .*Bad file format"), embedded_server(folder):
        pass
    wait_until_all_gone(folder)


def test_a_keeper_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper's last words are in the same log."""
    monkeypatch.setattr(embedded, "_server_binary", lambda: folder / "nothing")
    with pytest.raises(UnreachableError, match="No such file or directory"), embedded_server(folder):
        pass


def test_a_long_start_is_announced_once(folder: Path) -> None:
    """Whoever waits for more than two seconds is told so, and goes on waiting."""
    with embedded_server(folder) as url:
        server = process_in(folder / "server.lock")
        os.kill(server, signal.SIGSTOP)
        told: list[str] = []

        def announce(line: str) -> None:
            told.append(line)
            os.kill(server, signal.SIGCONT)

        with embedded_server(folder, announce=announce) as again:
            assert again == url
    assert len(told) == 1
    assert str(folder) in told[0]
    assert "\n" not in told[0]
