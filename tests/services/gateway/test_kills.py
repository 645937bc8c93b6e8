"""Gateway and server killed, cut off and doubled: what was acknowledged is in the log, and nothing counts twice."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import pytest
import redis

from services.runtime.settings import Settings
from services.store.connection import connect
from tests.drills import (
    Device,
    Killing,
    OwnGateway,
    Receipt,
    assert_all_counted_once,
    assert_held,
    reports_of,
)
from tests.faults import Action, Command, FaultProxy
from tests.gateways import enrolled, reported, running_gateway
from tests.projectors import SI_ONLY, Cradle, Forked, caught_up, environment, log_of, project
from tests.servers import OwnServer
from tests.waiting import wait_for

SEED = 20240313
ROUNDS = 50
DEVICES = ("9f3c2a", "0a11f0", "77d1e4")
REPORTS = 8
UNIT = "SI-MP-07"
PATIENCE_S = 0.2

NewDevice = Callable[..., Device]
NewGateway = Callable[[str], OwnGateway]
NewProjector = Callable[[str], Forked]


@pytest.fixture(scope="module")
def cradle() -> Iterator[Cradle]:
    with Cradle("services.cli.gateway") as cradle:
        yield cradle


@pytest.fixture
def environ(prefix: str) -> dict[str, str]:
    """Give the settings of processes, the server's address apart; nobody waits for a projector that a test froze."""
    limits = {"FIELDTALLY_RATE_LIMIT": "1000000", "FIELDTALLY_LAG_LIMIT": "1000000"}
    return {**environment("", prefix, SI_ONLY), **limits}


@pytest.fixture
def new_gateway(cradle: Cradle, tmp_path: Path, environ: dict[str, str]) -> Iterator[NewGateway]:
    """Start gateways that end with the test."""
    started: list[OwnGateway] = []

    def start(url: str) -> OwnGateway:
        started.append(OwnGateway(cradle, tmp_path, {**environ, "FIELDTALLY_REDIS_URL": url}))
        return started[-1]

    yield start
    for gateway in started:
        gateway.end()


@pytest.fixture
def new_projector(cradle: Cradle, tmp_path: Path, environ: dict[str, str]) -> Iterator[NewProjector]:
    """Start projectors that end with the test."""
    started: list[Forked] = []

    def start(url: str) -> Forked:
        said = tmp_path / f"projector{len(started)}"
        started.append(Forked(cradle, ["project"], said, {**environ, "FIELDTALLY_REDIS_URL": url}))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
def own_settings(settings_for: Callable[..., Settings]) -> Callable[[str], Settings]:
    """Build settings for a gateway or a projector in this process."""
    return lambda url: settings_for(url, SIDES=SI_ONLY, RATE_LIMIT="1000000", LAG_LIMIT="1000000")


@pytest.fixture
def new_device(prefix: str) -> NewDevice:
    """Enrol a device of the unit."""

    def enrol(client: redis.Redis, name: str, seed: object = SEED) -> Device:
        return Device(Random(f"{seed} {name}"), enrolled(client, prefix, device=name), f"/SI/{UNIT}/{name}")

    return enrol


def receipts_of(devices: Sequence[Device]) -> list[Receipt]:
    return [receipt for device in devices for receipt in device.receipts]


class Rounds:
    """Rounds of reporting by several devices at once, in each of which something is killed and started again."""

    def __init__(self, devices: Sequence[Device], proxy: FaultProxy, address: str) -> None:
        self.reports: list[bytes] = []
        self._devices = devices
        self._proxy = proxy
        self._address = address

    def run(self, random: Random, kill: Callable[[], None], start: Callable[[], None]) -> Killing:
        """Report and kill; return when all is started again and there is a receipt for everything."""
        killing = Killing(random, kill, at_most=len(DEVICES) * REPORTS)
        self._proxy.on_command = killing.command
        for device, name in zip(self._devices, DEVICES, strict=True):
            device.repeat(2)
            reports = reports_of(random, len(self.reports) + 1, REPORTS, name)
            device.report(reports)
            self.reports += reports
            device.sent, device.answered = killing.sent, killing.answered
        with ThreadPoolExecutor(len(DEVICES)) as pool:
            ends = [pool.submit(device.deliver, self._address) for device in self._devices]
            wait_for(lambda: killing.done.is_set() or all(end.done() for end in ends), within_s=30, what=str(killing))
            killing.now()  # at the end of the round, if its moment has not come
            self._proxy.on_command = None
            start()
            for end in ends:
                end.result()
        return killing


def test_a_gateway_killed_at_any_moment_has_acknowledged_nothing_that_is_not_in_the_log(
    new_gateway: NewGateway,
    new_projector: NewProjector,
    new_device: NewDevice,
    server_url: str,
    prefix: str,
    client: redis.Redis,
) -> None:
    """Fifty kills. In every other round the projector stands still: the index knows nothing of what is repeated."""
    devices = [new_device(client, name) for name in DEVICES]
    projector = new_projector(server_url)
    in_the_middle = 0
    with FaultProxy(server_url) as proxy:
        gateway = new_gateway(proxy.url)
        rounds = Rounds(devices, proxy, gateway.address)
        for number in range(ROUNDS):
            projector.send(signal.SIGSTOP if number % 2 else signal.SIGCONT)
            seen = len(receipts_of(devices))
            killing = rounds.run(Random(SEED + number), gateway.kill, gateway.start)
            print(f"seed {SEED + number}: {killing}, {len(receipts_of(devices)) - seen} receipts")  # noqa: T201  # a seed is of no use unless it is told
            assert_held(client, prefix, "SI", receipts_of(devices))
            in_the_middle += killing.reached
    assert in_the_middle >= ROUNDS // 2
    projector.send(signal.SIGCONT)
    wait_for(lambda: caught_up(client, prefix, "SI"), what="everything to be counted")
    assert_all_counted_once(client, prefix, "SI", rounds.reports)


def test_a_server_killed_at_any_moment_holds_everything_that_was_acknowledged(
    fresh_server: OwnServer,
    new_gateway: NewGateway,
    new_projector: NewProjector,
    new_device: NewDevice,
    prefix: str,
) -> None:
    """Fifty kills under one gateway, which is never started again."""
    with fresh_server.client() as client:
        devices = [new_device(client, name) for name in DEVICES]
    projector = new_projector(fresh_server.url)
    in_the_middle = 0
    with FaultProxy(fresh_server.url) as proxy:
        gateway = new_gateway(proxy.url)
        rounds = Rounds(devices, proxy, gateway.address)
        for number in range(ROUNDS):
            seen = len(receipts_of(devices))
            killing = rounds.run(Random(SEED + number), fresh_server.kill, fresh_server.start)
            print(f"seed {SEED + number}: {killing}, {len(receipts_of(devices)) - seen} receipts")  # noqa: T201  # a seed is of no use unless it is told
            with fresh_server.client() as client:
                assert_held(client, prefix, "SI", receipts_of(devices))
            in_the_middle += killing.reached
        assert gateway.process.poll() is None
        assert gateway.process.words[1:] == []
    assert in_the_middle >= ROUNDS // 2
    assert sum(device.unavailable for device in devices) > 0
    with fresh_server.client() as client:
        wait_for(lambda: caught_up(client, prefix, "SI"), what="everything to be counted")
        assert_all_counted_once(client, prefix, "SI", rounds.reports)
    assert projector.poll() is None


def test_a_server_that_was_set_back_is_not_believed_to_have_what_it_lost(
    fresh_server: OwnServer,
    own_settings: Callable[[str], Settings],
    new_device: NewDevice,
    prefix: str,
    tmp_path: Path,
) -> None:
    """An older copy of its disk was put in its place: what the gateway remembers is not what the log holds.

    Where the log held one of the lost reports, it may even hold another by now.
    """
    on_disk, copy = tmp_path / "server" / "appendonlydir", tmp_path / "copy"
    reports = reports_of(Random(SEED), 1, 24, DEVICES[0])
    other = reported(1_000)
    with running_gateway(own_settings(fresh_server.url)) as address:
        with fresh_server.client() as client:
            device = new_device(client, DEVICES[0])
        device.report(reports[:12])
        device.deliver(address)
        project(own_settings(fresh_server.url))
        fresh_server.kill()
        shutil.copytree(on_disk, copy)
        fresh_server.start()
        device.report(reports[12:])
        device.deliver(address)
        kept, lost = device.receipts[:12], device.receipts[12:]
        fresh_server.kill()
        shutil.rmtree(on_disk)
        shutil.copytree(copy, on_disk)
        fresh_server.start()
        with fresh_server.client() as client:
            client.xadd(f"{{{prefix}:SI}}:log", {"event": other}, id=lost[0].position)
        device.receipts.clear()
        device.repeat()
        device.deliver(address)
        assert kept == [receipt._replace(status="recorded") for receipt in device.receipts[:12]]
        assert ["duplicate"] * 12 + ["recorded"] * 12 == [receipt.status for receipt in device.receipts]
        with fresh_server.client() as client:
            assert_held(client, prefix, "SI", device.receipts)
            project(own_settings(fresh_server.url))
            assert_all_counted_once(client, prefix, "SI", [*reports, other])


# Cut off


class Cutting:
    """Does something to the k-th command that a request leads to; `steps` are the names of all of them.

    Without an action it is late: it takes effect when the gateway has given it up.
    """

    def __init__(self, at: int | None = None, action: Action | None = Action.PASS) -> None:
        self.steps: list[str] = []
        self._at = at
        self._action = action

    def __call__(self, command: Command) -> Action:
        """Decide about a command, as the proxy's rule."""
        if not of_a_request(command):
            return Action.PASS
        self.steps.append(command.name)
        if len(self.steps) != self._at:
            return Action.PASS
        if self._action is None:
            time.sleep(2 * PATIENCE_S)
        return self._action or Action.PASS


def of_a_request(command: Command) -> bool:
    """Tell what a request leads to from the looks that the gateway takes at the side now and then."""
    match command.name:
        case "HGET" | "XADD":
            return True
        case "HMGET":
            return command.args[0].endswith(b":index")
        case "XRANGE":
            return command.args[1] == command.args[2]
    return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the gateway give up a silent server after a moment."""
    monkeypatch.setattr("services.gateway.app.connect", partial(connect, timeout_s=PATIENCE_S))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "action",
    [Action.CUT_BEFORE, Action.CUT_AFTER, Action.SWALLOW_REPLY, None],
    ids=["cut-before", "cut-after", "silent", "late"],
)
@pytest.mark.parametrize("batch", [1, 3], ids=["single", "batch"])
def test_a_request_cut_off_at_any_command_is_answered_503_and_counts_once_when_it_is_sent_again(
    own_settings: Callable[[str], Settings],
    new_device: NewDevice,
    server_url: str,
    prefix: str,
    client: redis.Redis,
    action: Action | None,
    batch: int,
) -> None:
    """Both when it is new and when the log has it; each from a device that the gateway has not met before."""
    reports: list[bytes] = []
    receipts: list[Receipt] = []
    met: set[str] = set()
    cut_at: set[int] = set()
    with FaultProxy(server_url) as proxy, running_gateway(own_settings(proxy.url)) as address:
        for is_known in (False, True):
            uncut = Cutting()
            at = 0
            while at <= len(uncut.steps):
                name = f"{batch}-{at}"
                new = reports_of(Random(at), len(reports) + 1, batch, name)
                reports += new
                if is_known:
                    proxy.on_command = None
                    first = new_device(client, name)
                    first.report(new)
                    first.deliver(address, batch)
                    receipts += first.receipts
                cutting = Cutting(at, action) if at else uncut
                proxy.on_command = cutting
                device = new_device(client, name)
                device.report(new)
                device.deliver(address, batch)
                if 0 < at <= len(cutting.steps):  # a batch may be recorded in more or fewer turns than the uncut one
                    cut_at.add(at)
                    assert device.unavailable >= 1, f"at {at} of {uncut.steps}"
                receipts += device.receipts
                assert_held(client, prefix, "SI", device.receipts)
                at += 1
            met |= set(uncut.steps)
            print(f"cut at each of {uncut.steps}")  # noqa: T201  # a seed is of no use unless it is told
    assert {"HGET", "HMGET", "XADD", "XRANGE"} == met
    assert {1, 2, 3} <= cut_at
    assert_held(client, prefix, "SI", receipts)
    project(own_settings(server_url))
    assert_all_counted_once(client, prefix, "SI", reports)


@pytest.mark.usefixtures("impatient")
def test_several_devices_whose_requests_are_cut_off_at_random_lose_nothing(
    own_settings: Callable[[str], Settings], new_device: NewDevice, server_url: str, prefix: str, client: redis.Redis
) -> None:
    random = Random(SEED)
    print(f"seed {SEED}")  # noqa: T201  # a seed is of no use unless it is told
    actions = [Action.PASS] * 200 + [Action.CUT_BEFORE] * 10 + [Action.CUT_AFTER] * 10 + [Action.SWALLOW_REPLY]
    devices = [new_device(client, name) for name in DEVICES]
    reports = []
    for device, name in zip(devices, DEVICES, strict=True):
        own = reports_of(random, len(reports) + 1, 80, name)
        device.report(own)
        reports += own
    with FaultProxy(server_url) as proxy, running_gateway(own_settings(proxy.url)) as address:
        proxy.on_command = lambda command: random.choice(actions) if of_a_request(command) else Action.PASS
        at_once(lambda device: device.deliver(address), devices)
    assert sum(device.unavailable for device in devices) > 10
    assert_held(client, prefix, "SI", receipts_of(devices))
    project(own_settings(server_url))
    assert_all_counted_once(client, prefix, "SI", reports)


def at_once(work: Callable[[Device], None], devices: Sequence[Device]) -> None:
    with ThreadPoolExecutor(len(devices)) as pool:
        for end in [pool.submit(work, device) for device in devices]:
            end.result()


# Doubled


def test_a_report_that_two_gateways_take_at_once_is_in_the_log_twice_and_counts_once(
    new_gateway: NewGateway,
    own_settings: Callable[[str], Settings],
    new_device: NewDevice,
    server_url: str,
    prefix: str,
    client: redis.Redis,
) -> None:
    """Both have looked before either has written. Each then answers `duplicate`, with a position that holds it."""
    both = threading.Barrier(2)

    def rule(command: Command) -> Action:
        if command.name == "XADD" and not both.broken and client.xlen(f"{{{prefix}:SI}}:log") == 0:
            both.wait(10)
        return Action.PASS

    reports = reports_of(Random(SEED), 1, 1, DEVICES[0])
    devices = [new_device(client, DEVICES[0]) for _ in range(2)]
    with FaultProxy(server_url) as one, FaultProxy(server_url) as another:
        addresses = [new_gateway(proxy.url).address for proxy in (one, another)]
        one.on_command = another.on_command = rule
        for turn in range(2):
            for device in devices:
                device.report(reports)
            at_once(lambda device: device.deliver(addresses[devices.index(device)]), devices)
            assert ["recorded", "duplicate"][: turn + 1] == [receipt.status for receipt in devices[0].receipts]
            assert ["recorded", "duplicate"][: turn + 1] == [receipt.status for receipt in devices[1].receipts]
            assert_held(client, prefix, "SI", receipts_of(devices))
            assert len(log_of(client, prefix, "SI")) == 2
            project(own_settings(server_url))
            assert_all_counted_once(client, prefix, "SI", reports)


def test_two_gateways_that_are_sent_the_same_reports_count_each_once(
    new_gateway: NewGateway,
    new_projector: NewProjector,
    new_device: NewDevice,
    server_url: str,
    prefix: str,
    client: redis.Redis,
) -> None:
    addresses = [new_gateway(server_url).address for _ in range(2)]
    projector = new_projector(server_url)
    random = Random(SEED)
    print(f"seed {SEED}")  # noqa: T201  # a seed is of no use unless it is told
    reports: list[bytes] = []
    pairs = []
    for name in DEVICES[:2]:
        own = reports_of(random, len(reports) + 1, 150, name)
        reports += own
        for number in range(2):
            device = new_device(client, name, seed=number)
            device.report(random.sample(own, len(own)) if number else own)
            pairs.append(device)
    at_once(lambda device: device.deliver(addresses[pairs.index(device) % 2]), pairs)
    wait_for(lambda: caught_up(client, prefix, "SI"), what="everything to be counted")
    # Now the index has them all: whichever gateway is asked, wherever the report came in.
    for device, address in zip(pairs, [addresses[1], addresses[0]] * 2, strict=True):
        device.repeat()
        device.deliver(address)
        assert {"duplicate"} == {receipt.status for receipt in device.receipts[150:]}
    assert_held(client, prefix, "SI", receipts_of(pairs))
    assert_all_counted_once(client, prefix, "SI", reports)
    assert projector.poll() is None
