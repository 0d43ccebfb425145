"""A client is between begin and finish, and the server is killed or stopped, its disk full, or the connection cut.

Eight others commit all the time. Whatever step it was: what was acknowledged is there and nothing else but a finish
that was in flight, none of it half; the locks are free; the others go on.
"""

import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage as ZODBFileStorage
from ZODB.scripts import fstest

from tests.crash.client import OBJECTS, oid_of
from tests.fixtures_small_disk import SmallDisk
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.crew import Crew
from tests.server.raw_client import RawClient
from zeo_core.errors import ConflictError, POSKeyError, StorageFullError
from zeo_core.ids import ZERO_TID, Oid, Tid, successor

CLIENTS = 8
OURS = 50
"""The lane of the client in question."""

STEPS = ("begun", "stored", "voting", "voted", "finishing", "finished")
"""How far it has come: what is voting or finishing has been sent and not been waited for."""

SPOOLED = "transaction-spool-size 0"
"""Has the records of all transactions wait in files."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset


OpenOffice = Callable[..., "Office"]
"""Opens one in a directory, with keys of <zeo> if any are given."""


class Office:
    """A server that can be started anew at its address, and the eight that commit."""

    def __init__(self, start_zeod: StartZeod, directory: Path, crew: Crew, keys: str = "") -> None:
        self._start_zeod = start_zeod
        self._directory, self._path, self._keys = directory, str(directory / "Data.fs"), keys
        self.server: Zeod = self._started("127.0.0.1:0")
        self.crew = crew
        self._address = self.server.url.removeprefix("zeo://")
        for lane in range(CLIENTS):
            crew.start(self._address, str(lane))
        self.go_on()

    def restart(self) -> None:
        self.server = self._started(self._address)

    def _started(self, address: str) -> Zeod:
        conf = self._directory / "zeo.conf"
        conf.write_text(
            f"<zeo>\naddress {address}\n{self._keys}\n</zeo>\n<filestorage>\npath {self._path}\n</filestorage>\n"
        )
        return self._start_zeod("-C", str(conf))

    def go_on(self) -> None:
        """Wait until each of the eight has committed twice more, and see that nobody has seen anything wrong."""
        before = [worker.total("turn") for worker in self.crew.workers]
        self.crew.until(
            lambda: all(
                worker.total("turn") >= turn + 2 for worker, turn in zip(self.crew.workers, before, strict=True)
            )
        )
        assert [wrong for tally in self.crew.tallies() for wrong in tally["wrong"]] == []

    def close(self) -> None:
        """End the shift and look at the file, with ours and with ZODB's eyes."""
        self.crew.close()
        assert self.server.stop() == 0
        fstest.main([self._path])
        with closing(ZODBFileStorage(self._path, read_only=True)) as zodb:
            turns = {tally["worker"]: tally["turn"] for tally in self.crew.tallies()}
            assert len(turns) == CLIENTS
            for lane, turn in turns.items():
                assert {int(zodb.load(oid_of(lane, number))[0].split()[0]) for number in range(OBJECTS)} == {turn}


@pytest.fixture
def open_office(start_zeod: StartZeod, tmp_path: Path) -> Iterator[OpenOffice]:
    with Crew(tmp_path, "tests.crash.lane") as crew:
        yield lambda directory, keys="": Office(start_zeod, directory, crew, keys)


def look(client: RawClient) -> tuple[int, Tid]:
    """Return the number that our lane's objects have, all of them the same, and its serial."""

    before = successor(client.call("lastTransaction"))  # one moment for all: a finish may be in flight

    def load(number: int) -> tuple[int, Tid]:
        try:
            found = client.load(oid_of(OURS, number), before)
        except POSKeyError:
            return 0, ZERO_TID
        return (int(found[0].split()[0]), found[1]) if found else (0, ZERO_TID)

    found = {load(number) for number in range(OBJECTS)}
    assert len(found) == 1
    return found.pop()


def objects(turn: int, serial: Tid, size: int = 100) -> dict[Oid, tuple[Tid, bytes]]:
    return {oid_of(OURS, number): (serial, b"%d " % turn + b"x" * size) for number in range(OBJECTS)}


def advance(client: RawClient, step: str, turn: int, serial: Tid) -> None:
    """Bring a transaction to a step."""
    done = STEPS.index(step)
    client.begin(1, {} if step == "begun" else objects(turn, serial))
    client.call("ping")  # all of it has arrived
    if done >= STEPS.index("voted"):
        assert client.call("vote", 1) == ()
    elif step == "voting":
        client.send("vote", 1)
    if step == "finishing":
        client.send("tpc_finish", 1)
    elif step == "finished":
        client.call("tpc_finish", 1)


def may_be_there(step: str, turn: int) -> set[int]:
    return {"finishing": {turn - 1, turn}, "finished": {turn}}.get(step, {turn - 1})


def goes_on_after(office: Office, step: str, turn: int) -> None:
    """Assert that the server has what it has to have, that the objects are not locked, and that the others go on."""
    with RawClient(office.server.address) as client:
        while True:
            found, serial = look(client)
            assert found in may_be_there(step, turn)
            try:
                client.commit(objects(turn, serial))
                break
            except ConflictError:
                assert (step, found) == ("finishing", turn - 1)  # it was finished only now
        assert look(client)[0] == turn
    office.go_on()


def kill(office: Office, _client: RawClient, _step: str) -> None:
    office.server.kill()
    office.restart()


def terminate(office: Office, client: RawClient, step: str) -> None:
    """Who has voted when the server is told to stop may finish; the others are sent away."""
    office.server.process.send_signal(signal.SIGTERM)
    if step == "voted":
        client.call("tpc_finish", 1)
    elif step == "voting":  # it may have been granted
        client.send("tpc_finish", 1)
    client.wait_closed()
    assert office.server.wait() == 0
    office.restart()


def cut(_office: Office, client: RawClient, _step: str) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


Fault = Callable[[Office, RawClient, str], None]


def at_steps(office: Office, fault: Fault, steps: tuple[str, ...] = STEPS) -> None:
    with RawClient(office.server.address) as client:
        turn = look(client)[0]
    for step in steps:
        turn += 1
        with RawClient(office.server.address) as client:
            advance(client, step, turn, look(client)[1])
            fault(office, client, step)
        if fault is terminate:
            step = {"voting": "finishing", "voted": "finished"}.get(step, step)
        goes_on_after(office, step, turn)


def test_at_the_steps_that_differ(open_office: OpenOffice, tmp_path: Path) -> None:
    office = open_office(tmp_path)
    at_steps(office, cut)
    at_steps(office, kill, ("stored", "voted", "finishing"))
    at_steps(office, terminate, ("voting", "voted"))
    office.close()


def test_at_the_steps_that_differ_with_all_records_in_files(open_office: OpenOffice, tmp_path: Path) -> None:
    """What has not been committed leaves no file behind, and what is read back is what was sent."""
    office = open_office(tmp_path, SPOOLED)
    at_steps(office, cut, ("stored", "voting", "voted"))
    at_steps(office, kill, ("stored", "finishing"))
    at_steps(office, terminate, ("voted",))
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(("Data.fs", "worker-", "zeod-"))}
    assert names == {"zeo.conf"}
    office.close()


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["", SPOOLED])
def test_at_every_step_many_times(open_office: OpenOffice, tmp_path: Path, keys: str) -> None:
    office = open_office(tmp_path, keys)
    for _ in range(10):
        for fault in (kill, terminate, cut):
            at_steps(office, fault)
    office.close()


def full_disk_at_each_step(office: Office, disk: SmallDisk) -> None:
    """What was voted is finished, whatever the disk is like by then; what was not is refused until there is room."""
    with RawClient(office.server.address) as client:
        turn = look(client)[0]
    for step in ("begun", "stored", "voted", "finishing"):
        turn += 1
        refused = office.crew.total("refused")
        with RawClient(office.server.address) as client:
            serial = look(client)[1]
            advance(client, step, turn, serial)
            disk.fill()
            office.crew.until(lambda refused=refused: office.crew.total("refused") > refused)  # type: ignore[misc]
            if step == "voted":
                client.call("tpc_finish", 1)
            elif step == "finishing":
                client.call("ping")
            else:
                client.begin(1, objects(turn, serial, size=4 << 20))
                with pytest.raises(StorageFullError, match=r"bytes to store, .* free|No space left"):
                    client.call("vote", 1)
            disk.free()
        goes_on_after(office, "finished" if step == "voted" else step, turn)


def test_a_full_disk_at_each_step(open_office: OpenOffice, small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(64)
    office = open_office(disk.path)
    full_disk_at_each_step(office, disk)
    office.close()


@pytest.mark.slow
def test_a_full_disk_many_times(open_office: OpenOffice, small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(256)
    office = open_office(disk.path)
    for _ in range(10):
        full_disk_at_each_step(office, disk)
    office.close()
