"""Backups: byte for byte, to any point in time, through packs, damage and interruptions; repozo agrees."""

import json
import time
from pathlib import Path

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.scripts import repozo

from tests.server.storages.file.build import File
from zeo_core.errors import FileLockedError, StorageError
from zeo_core.ids import pack_id
from zeo_core.storage import Progress
from zeo_server.storages.file.backup import Backup, Part, Repository, Restore, verify

A = pack_id(1)
T1, T2, T3, T9 = map(pack_id, (1, 2, 3, 9))


def back_up(directory: Path, content: bytes | None = None, *, full: bool = False, quick: bool = False) -> Backup:
    path = directory / "Data.fs"
    if content is not None:
        path.write_bytes(content)
    backup = Backup(str(path), str(directory / "repository"), full=full, quick=quick)
    list(backup.steps())
    return backup


def restored(directory: Path, at: bytes | None = None) -> bytes:
    target = directory / "Restored.fs"
    target.unlink(missing_ok=True)
    steps = list(Restore(str(directory / "repository"), str(target), at=at).steps())
    assert steps[-1].done_bytes == steps[-1].total_bytes
    return target.read_bytes()


def kind(backup: Backup) -> str:
    return "nothing" if backup.part is None else "full" if backup.part.full else "incremental"


@pytest.mark.parametrize("quick", [False, True])
def test_full_then_incremental_then_nothing(tmp_path: Path, quick: bool) -> None:
    file = File().add((A, b"one"))
    assert kind(back_up(tmp_path, file.content, quick=quick)) == "full"
    assert kind(back_up(tmp_path, quick=quick)) == "nothing"
    file.add((A, b"two"))
    assert kind(back_up(tmp_path, file.content, quick=quick)) == "incremental"
    file.add((A, b"three"))
    assert kind(back_up(tmp_path, file.content + b"unfinished", quick=quick)) == "incremental"
    assert restored(tmp_path) == file.content
    assert [part.full for part in Repository(str(tmp_path / "repository")).parts] == [True, False, False]
    assert kind(back_up(tmp_path, file.content, full=True)) == "full"
    assert restored(tmp_path) == file.content


def test_to_any_point_in_time(tmp_path: Path) -> None:
    file = File()
    states = []
    for number in range(6):
        states.append(file.add((A, b"%d" % number)).content)
        if number in (1, 2, 5):
            back_up(tmp_path, file.content)
    for number, content in enumerate(states, 1):
        assert restored(tmp_path, pack_id(number)) == content
    assert restored(tmp_path, T9) == states[-1]
    with pytest.raises(StorageError, match="nothing was committed up to"):
        restored(tmp_path, pack_id(0))
    assert not list(tmp_path.glob("Restored*"))


def test_a_pack_makes_a_full_backup_and_older_states_come_from_older_ones(tmp_path: Path) -> None:
    old = File().add((A, b"1")).add((A, b"2")).add((A, b"3"))
    back_up(tmp_path, old.content)
    packed = File(content=b"").add((A, b"x" * 9), status=b"p")
    packed.add((A, b"3"), status=b"p").add((A, b"4"), status=b"p").add((A, b"5"))
    backup = back_up(tmp_path, packed.content)
    assert (kind(backup), "packed" in backup.reason) == ("full", True)
    assert restored(tmp_path, T2) == File().add((A, b"1")).add((A, b"2")).content
    assert restored(tmp_path) == packed.content
    repository = Repository(str(tmp_path / "repository"))
    manifest = {"format": 1, "parts": [json.loads(json.dumps({n: getattr(repository.parts[1], n) for n in FIELDS}))]}
    (tmp_path / "repository" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match="packed since"):
        restored(tmp_path, T2)


FIELDS = Part.__slots__


def test_a_history_that_was_given_up_is_not_restored(tmp_path: Path) -> None:
    given_up = File().add((A, b"1")).add((A, b"2")).add((A, b"3"))
    back_up(tmp_path, given_up.content)
    lived = File().add((A, b"1")).add((A, b"other"))
    assert kind(back_up(tmp_path, lived.content)) == "full"
    for at in (T2, T3):
        assert restored(tmp_path, at) == lived.content
    assert restored(tmp_path, T1) == File().add((A, b"1")).content


def test_what_is_damaged_is_not_restored(tmp_path: Path) -> None:
    backup = back_up(tmp_path, File().add((A, b"one")).content)
    assert backup.part is not None
    path = tmp_path / "repository" / backup.part.name
    content = path.read_bytes()
    assert [line for line in verify(str(tmp_path / "repository")) if not isinstance(line, Progress)] == []
    for damaged in (content[:-1], content + b"x", content[:-1] + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=backup.part.name):
            restored(tmp_path)
        told = [line for line in verify(str(tmp_path / "repository")) if isinstance(line, str)]
        assert len(told) == 1
        assert str(path) in told[0]
        assert not list(tmp_path.glob("Restored*"))
    path.unlink()
    with pytest.raises(StorageError, match="No such file"):
        restored(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        "no json",
        "[]",
        '{"format": 2, "parts": []}',
        '{"format": 1, "parts": [{}]}',
        '{"format": 1, "parts": [{"name": "../x", "start": 0, "end": 9, "sha256": "", "last_tid": "00", "made": ""}]}',
        '{"format": 1, "parts": [{"name": "x", "start": 4, "end": 9, "sha256": "", "last_tid": "00", "made": ""}]}',
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(StorageError, match=r"manifest\.json: "):
        Repository(str(tmp_path))


def test_an_interrupted_backup_is_none(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_bytes(File().add((A, b"x" * 3_000_000)).content)
    steps = Backup(str(tmp_path / "Data.fs"), str(tmp_path / "repository")).steps()
    next(steps)
    with pytest.raises(FileLockedError):
        next(Backup(str(tmp_path / "Data.fs"), str(tmp_path / "repository")).steps())
    steps.close()  # type: ignore[attr-defined]
    assert Repository(str(tmp_path / "repository")).parts == []
    assert kind(back_up(tmp_path)) == "full"
    with pytest.raises(StorageError, match="no backups here"):
        Restore(str(tmp_path / "nothing"), str(tmp_path / "Restored.fs"))


def test_repozo_restores_the_same(tmp_path: Path) -> None:
    db = DB(FileStorage(str(tmp_path / "Data.fs")))
    manager = transaction.TransactionManager()
    root = db.open(manager).root()
    arguments = ["-f", str(tmp_path / "Data.fs"), "-r", str(tmp_path / "repozo")]
    (tmp_path / "repozo").mkdir()
    for number in range(4):
        root[number] = PersistentMapping()
        manager.commit()
        if number == 2:
            db.pack(time.time())
        kind_made = kind(back_up(tmp_path))
        assert kind_made == ("full" if number in (0, 2) else "incremental")
        time.sleep(1.01)  # repozo names its files by the second
        repozo.main(["-B", *arguments])
    db.close()
    repozo.main(["-R", "-o", str(tmp_path / "Theirs.fs"), "-r", str(tmp_path / "repozo")])
    assert restored(tmp_path) == (tmp_path / "Theirs.fs").read_bytes() == (tmp_path / "Data.fs").read_bytes()
