"""A damaged disk cache: whatever stands in the files, there is no wrong object, and a working cache afterwards."""

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.client.cache.truth import OIDS, History
from zeo_client.cache.directory import CacheDirectory
from zeo_client.cache.disk import DiskCache, Known, Reached
from zeo_core.ids import Oid, Tid, pack_id, successor

Image = dict[str, bytes]


class Scene:
    """A cache that was filled, its files after a clean end or as a killed process left them, and what came after."""

    def __init__(self, path: Path, *, killed: bool) -> None:
        self.truth = History()
        self.path = path
        disk = self.open(path / "made")
        for number in range(40):
            tid = self.truth.commit({OIDS[number % 5], OIDS[number * 3 % 5]}, 30 + 100 * (number % 7))
            disk.invalidate(tid, self.truth.log[-1][1])
            for oid in OIDS:
                revision = self.truth.load_before(oid, successor(tid))
                if revision is not None:
                    disk.store(oid, revision)
            if number % 3 == 0:
                disk.flush()
        disk.flush()
        if not killed:
            disk.close()
        self.image = {name.name: name.read_bytes() for name in (path / "made").iterdir()}
        if killed:
            disk.close()
        for oid in OIDS[:3]:
            self.truth.commit({oid}, 10)

    def open(self, path: Path) -> DiskCache:
        disk = DiskCache(str(path), "one", 1_000_000, background=False)
        disk.catch_up(pack_id(self.truth.last), self.truth.changes_since)
        return disk

    def check(self, name: str, damaged: bytes) -> int:
        """Open the cache with one file replaced; return how many revisions it still has."""
        where = self.path / "damaged"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        for other, data in (self.image | {name: damaged}).items():
            (where / other).write_bytes(data)
        disk = self.open(where)
        try:
            found = self.compare(disk)
            last = self.truth.load_before(OIDS[0], pack_id(self.truth.last + 1))
            assert last is not None
            disk.store(OIDS[0], last)
            disk.flush()
            self.compare(disk)
        finally:
            disk.close()
        again = self.open(where)
        try:
            assert again.load_before(OIDS[0], pack_id(self.truth.last + 1)) is not None
            self.compare(again)
        finally:
            again.close()
        return found

    def compare(self, disk: DiskCache) -> int:
        found = 0
        for oid in OIDS:
            for number in range(40, self.truth.last + 2):
                before = pack_id(number)
                known = disk.load_before(oid, before)
                if known is None:
                    continue
                found += 1
                self.compare_one(oid, before, known)
                for other, further in disk.load_ahead(Reached(known, 0, 1000), before):
                    self.compare_one(other, before, further)
        return found

    def compare_one(self, oid: Oid, before: Tid, known: Known) -> None:
        true = self.truth.load_before(oid, before)
        assert true is not None
        assert known.revision[:2] == true[:2]
        assert known.revision.end_tid in (None, true.end_tid)


@pytest.fixture(params=["closed", "killed"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return Scene(tmp_path, killed=request.param == "killed")


def files_of(scene: Scene) -> list[str]:
    return [name for name in scene.image if name.endswith((".cache", "-wal", "-shm"))]


def test_the_files_that_are_damaged_here_hold_something(scene: Scene) -> None:
    names = files_of(scene)
    assert "1.cache" in names
    assert scene.check("1.cache", scene.image["1.cache"]) > 100


def cuts(scene: Scene, number: int) -> None:
    for name in files_of(scene):
        data = scene.image[name]
        for length in range(0, len(data), max(len(data) // number, 1)):
            scene.check(name, data[:length])


def flips(scene: Scene, number: int, seed: int) -> None:
    chance = random.Random(seed)
    for name in files_of(scene):
        for _ in range(number):
            damaged = bytearray(scene.image[name])
            for _ in range(chance.choice((1, 1, 3, 30))):
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            scene.check(name, bytes(damaged))


def test_cut(scene: Scene) -> None:
    cuts(scene, 12)


def test_flipped(scene: Scene) -> None:
    flips(scene, 15, 1)


@pytest.mark.slow
def test_cut_everywhere(scene: Scene) -> None:
    cuts(scene, 1500)


@pytest.mark.slow
def test_flipped_often(scene: Scene) -> None:
    flips(scene, 1500, 2)


@pytest.mark.parametrize("foreign", [b"", b"ZEC3 a cache of ZEO's client", os.urandom(100_000)])
def test_foreign_files_are_thrown_away(tmp_path: Path, foreign: bytes, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tmp_path, killed=False)
    assert scene.check("1.cache", foreign) == 0
    assert "1.cache is thrown away" in caplog.text
    assert CacheDirectory(str(tmp_path / "damaged")).current() == str(tmp_path / "damaged" / "2.cache")
    assert not (tmp_path / "damaged" / "1.cache").exists()


def test_a_column_whose_name_is_flipped(tmp_path: Path) -> None:
    """SQLite finds nothing wrong with it, and every look into the cache would fail, at every start."""
    scene = Scene(tmp_path, killed=False)
    image = scene.image["1.cache"]
    assert image.count(b"ended BLOB, data BLOB NOT NULL, crc") == 1
    flipped = image.replace(b"ended BLOB, data BLOB NOT NULL, crc", b"ended BLOB, data BLOB NOT NULL, crb")
    assert scene.check("1.cache", flipped) == 0


def test_what_a_process_left_that_died_while_it_copied_is_not_used(tmp_path: Path) -> None:
    scene = Scene(tmp_path, killed=True)
    scene.image["1.cache-copying-77-1"] = b""
    assert scene.check("1.cache", scene.image["1.cache"]) == 0
