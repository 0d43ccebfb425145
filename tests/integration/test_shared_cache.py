"""One disk cache for all processes of a host, against a live server."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client.peer import until
from tests.contract.storages import commit
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.cache_reader import OBJECTS
from zeo_client.storage import ClientStorage
from zeo_core.ids import Oid, Tid, pack_id, successor

ROOT = Path(__file__).parents[2]
READERS = 4

OIDS = [pack_id(number) for number in range(1, OBJECTS + 1)]

History = dict[Oid, list[tuple[Tid, str]]]


class Readers:
    """Reading processes, some of which are killed and begun anew; each writes to a file of its own."""

    def __init__(self, server: Zeod, directory: Path) -> None:
        self._where = "{}:{}".format(*server.address)
        self._directory = directory
        self._number = 0
        self._running: list[subprocess.Popen[bytes]] = []
        for _ in range(READERS):
            self.start()

    def start(self) -> None:
        self._number += 1
        command = [sys.executable, "-m", "tests.integration.cache_reader", self._where, str(self._directory / "cache")]
        with (self._directory / f"read-{self._number}").open("wb") as output:
            program = subprocess.Popen([*command, str(self._number)], cwd=ROOT, stdout=output)
        self._running.append(program)

    def kill(self, program: subprocess.Popen[bytes]) -> None:
        assert program.poll() is None, "a reader failed"
        program.send_signal(signal.SIGKILL)
        program.wait()
        self._running.remove(program)

    def replace(self, chance: random.Random) -> None:
        self.kill(chance.choice(self._running))
        self.start()

    def end(self) -> list[str]:
        """Kill all, and return the whole lines that were ever written."""
        for program in list(self._running):
            self.kill(program)
        texts = [path.read_text() for path in sorted(self._directory.glob("read-*"))]
        return [line for text in texts for line in text.split("\n")[:-1]]

    def hits(self) -> int:
        texts = [path.read_text() for path in self._directory.glob("read-*")]
        lines = [line for text in texts for line in text.split("\n")[:-1]]
        return sum(int(line.split()[1]) for line in lines if line.startswith("hits"))


def history_of(storage: ClientStorage) -> History:
    history: History = {}
    for transaction in storage.transactions():
        for record in transaction.records:
            history.setdefault(record.oid, []).append((transaction.tid, (record.data or b"").decode()))
    return history


def wrong(line: str, history: History) -> bool:
    oid, before, tid, end, data = [*line.split(), ""][:5]
    revisions = history[bytes.fromhex(oid)]
    number = max(number for number, (each, _) in enumerate(revisions) if each < bytes.fromhex(before))
    following = revisions[number + 1][0].hex() if number + 1 < len(revisions) else "-"
    return (tid, data) != (revisions[number][0].hex(), revisions[number][1]) or end not in ("-", following)


def race(server: Zeod, directory: Path, seconds: float) -> None:
    """Commit while processes read and are killed, then compare every answer with the log."""
    chance = random.Random(7)
    writer = ClientStorage(server.address)
    commit(writer, dict.fromkeys(OIDS, b"0"))
    readers = Readers(server, directory)
    deadline, replacement = time.monotonic() + seconds, time.monotonic() + 1
    number = 0
    while time.monotonic() < deadline or readers.hits() < 300:
        number += 1
        commit(writer, dict.fromkeys(chance.sample(OIDS, 3), b"%d" % number))
        time.sleep(chance.random() * 0.02)  # the pace of the commits, not a wait for something
        if time.monotonic() > replacement:
            readers.replace(chance)
            replacement = time.monotonic() + chance.random()
        assert time.monotonic() < deadline + 100, "the cache is not hit"
    lines = [line for line in readers.end() if not line.startswith("hits")]
    history = history_of(writer)
    writer.close()
    assert len(lines) > 300
    assert [line for line in lines if wrong(line, history)] == []


def test_processes_that_share_a_cache_read_what_was_committed(start_zeod: StartZeod, tmp_path: Path) -> None:
    race(start_zeod("-f", "Data.fs"), tmp_path, 3)


@pytest.mark.slow
def test_processes_share_a_cache_for_minutes(start_zeod: StartZeod, tmp_path: Path) -> None:
    race(start_zeod("-f", "Data.fs"), tmp_path, 120)


def loads(storage: ClientStorage) -> int:
    """Return how many loads the server has answered, to anybody."""
    return int(storage.server_status()["loads"])


def read_all(storage: ClientStorage) -> list[bytes]:
    before = successor(storage.last_tid())
    found = [storage.load_before(oid, before) for oid in OIDS]
    return [revision.data for revision in found if revision is not None]


def test_a_restarted_client_loads_nothing_again(start_zeod: StartZeod, tmp_path: Path) -> None:
    server, cache = start_zeod("-f", "Data.fs"), tmp_path / "cache"
    writer = ClientStorage(server.address)
    tid = commit(writer, dict.fromkeys(OIDS, b"1"))
    with_cache = ClientStorage(server.address, cache=cache)
    assert read_all(with_cache) == [b"1"] * OBJECTS
    with_cache.close()
    commit(writer, {OIDS[3]: b"2"}, {OIDS[3]: tid})

    before = loads(writer)
    with_cache = ClientStorage(server.address, cache=cache)
    assert read_all(with_cache) == [b"2" if oid == OIDS[3] else b"1" for oid in OIDS]
    assert loads(writer) == before + 1
    # the state that was current before the change, too: its end is not known any more, so the server is asked once
    assert [with_cache.load_before(oid, successor(tid)) is not None for oid in OIDS] == [True] * OBJECTS
    assert loads(writer) == before + 2
    assert with_cache.cache_stats()["disk_hits"] > 0  # not for each: rows are read ahead into memory
    with_cache.close()
    writer.close()


def test_what_one_process_has_loaded_another_finds(start_zeod: StartZeod, tmp_path: Path) -> None:
    server, cache = start_zeod("-f", "Data.fs"), tmp_path / "cache"
    first, second = (ClientStorage(server.address, cache=cache, memory_cache_size=0) for _ in range(2))
    tid = commit(first, dict.fromkeys(OIDS, b"1"))  # one's own commits, too
    until(lambda: second.last_tid() == tid)
    until(lambda: read_all(second) and second.cache_stats()["disk_hits"] >= OBJECTS)  # as soon as it is written
    before = loads(first)
    assert read_all(second) == [b"1"] * OBJECTS
    assert loads(first) == before
    commit(first, dict.fromkeys(OIDS[:9], b"2"), dict.fromkeys(OIDS, tid))
    until(lambda: second.last_tid() > tid)
    assert read_all(second) == [b"2"] * 9 + [b"1"] * (OBJECTS - 9)
    first.close()
    second.close()


def test_a_server_that_is_back_from_a_backup(start_zeod: StartZeod, tmp_path: Path) -> None:
    """Lesson B12: the cache holds a transaction that the server no longer has, though it has later ones."""
    data, cache = tmp_path / "Data.fs", tmp_path / "cache"
    server = start_zeod("-f", "Data.fs")
    address = "{}:{}".format(*server.address)
    writer = ClientStorage(server.address)
    first = commit(writer, dict.fromkeys(OIDS, b"1"))
    writer.close()
    server.stop()
    shutil.copy(data, tmp_path / "backup")

    server = start_zeod("-f", "Data.fs", "-a", address)
    with_cache = ClientStorage(server.address, cache=cache)
    commit(with_cache, {OIDS[0]: b"lost"}, {OIDS[0]: first})
    assert read_all(with_cache) == [b"lost"] + [b"1"] * (OBJECTS - 1)
    with_cache.close()
    server.stop()
    for name in ("Data.fs", "Data.fs.index"):
        (tmp_path / name).unlink()
    shutil.copy(tmp_path / "backup", data)

    server = start_zeod("-f", "Data.fs", "-a", address)
    writer = ClientStorage(server.address)
    commit(writer, {OIDS[1]: b"2"}, {OIDS[1]: first})
    with_cache = ClientStorage(server.address, cache=cache)
    assert read_all(with_cache) == [b"1", b"2"] + [b"1"] * (OBJECTS - 2)
    with_cache.close()
    before = loads(writer)
    with_cache = ClientStorage(server.address, cache=cache)
    assert read_all(with_cache) == [b"1", b"2"] + [b"1"] * (OBJECTS - 2)
    assert loads(writer) == before
    with_cache.close()
    writer.close()


def test_a_cache_of_another_storage_is_not_used(start_zeod: StartZeod, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for content in (b"1", b"2"):
        directory = tmp_path / content.decode()
        directory.mkdir()
        server = start_zeod("-f", "Data.fs", directory=directory)
        writer = ClientStorage(server.address)
        commit(writer, dict.fromkeys(OIDS, content))
        writer.close()
        with_cache = ClientStorage(server.address, cache=cache)
        assert read_all(with_cache) == [content] * OBJECTS
        with_cache.close()
        server.stop()
