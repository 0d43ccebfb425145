"""Backups of a Data.fs: the whole file now and then, in between what was appended; restored to any point in time.

A repository is a directory with the parts, which are bytes of the file as they stand in it, and `manifest.json`, which
is the authority on them (lesson B38): it lists the parts in the order in which they were made, each with its place in
the file, its length and its SHA-256. A file that it does not list is what a backup that was cut short left; a part that
is not as it says is damaged and nothing is restored from it. A part is on disk before the manifest names it.

A chain is a full part and the incremental ones up to the next full one. The source may be open in a server, which only
appends to it: a backup copies what is committed when it begins. A pack replaces the file; that is noticed by the
checksums of what is backed up already, and makes the next backup a full one.

A part comes with the blobs of its records, if their directory is given: see backup_blobs.py. A server has the blobs of
a transaction in their places before the transaction counts, so that those of all records that are copied are there,
unless a pack removes some meanwhile: then there is no backup, and the next try makes a full one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BufferedRandom
from itertools import pairwise
from typing import Any

import zc.lockfile

from zeo_core.errors import FileLockedError, StorageError
from zeo_core.ids import MAX_TID, Tid, successor, tid_repr
from zeo_core.storage import Progress
from zeo_server.storages import durable
from zeo_server.storages.blobs import BlobDirectory
from zeo_server.storages.faults import failure
from zeo_server.storages.file.backup_blobs import BlobList, SavedBlobs, blob_records
from zeo_server.storages.file.format import MAGIC_SIZE, STATUS_PACKED
from zeo_server.storages.file.fresh import refuse_existing
from zeo_server.storages.file.log import Log
from zeo_server.storages.file.reader import Descriptor, Reader
from zeo_server.storages.file.recover import read_contents
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["Backup", "Part", "Repository", "Restore", "verify"]

_MANIFEST = "manifest.json"
_FORMAT = 1
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a backup: the bytes from `start` to `end` of the file; a full one starts at 0."""

    name: str
    start: int
    end: int
    sha256: str
    last_tid: str
    made: str
    blobs: BlobList | None = None

    @property
    def full(self) -> bool:
        """Whether a chain starts here."""
        return self.start == 0

    @property
    def tid(self) -> Tid:
        """The last tid in the part."""
        return bytes.fromhex(self.last_tid)


class Repository:
    """A directory of backups and its manifest."""

    def __init__(self, path: str) -> None:
        """Read the manifest at `path`, which may be a directory that is empty or not there yet."""
        self.path = path
        self.parts: list[Part] = self._load()

    def chain(self, last: int = -1) -> list[Part]:
        """Return the parts that make the file as it was after the part with the number `last`."""
        parts = self.parts[: last + 1] if last >= 0 else self.parts
        starts = [number for number, part in enumerate(parts) if part.full]
        return parts[starts[-1] :] if starts else []

    def file(self, part: Part) -> str:
        """Return the path of a part."""
        return os.path.join(self.path, part.name)

    def add(self, part: Part) -> None:
        """Add a part to the manifest; its file is on disk already. StorageError, and nothing has changed."""
        self.parts.append(part)
        manifest = {"format": _FORMAT, "parts": [asdict(part) for part in self.parts]}
        path = os.path.join(self.path, _MANIFEST)
        try:
            durable.write_file(path, [json.dumps(manifest, indent=1).encode()], path + ".part")
        except OSError as error:
            raise failure(path, error) from error

    def _load(self) -> list[Part]:
        path = os.path.join(self.path, _MANIFEST)
        try:
            with open(path, "rb") as file:
                manifest = json.load(file)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: cannot be read: {error}") from error
        try:
            return _parts(manifest)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise StorageError(f"{path}: no manifest of a backup: {error}") from error


def _parts(manifest: dict[str, Any]) -> list[Part]:
    """Return the parts in a manifest; ValueError, or what its misshape leads to, if it is none."""
    if manifest["format"] != _FORMAT:
        raise ValueError(f"of format {manifest['format']!r}, this program knows {_FORMAT}")
    parts = [Part(**{**part, "blobs": _blob_list(part.get("blobs"))}) for part in manifest["parts"]]
    for before, after in pairwise(parts):
        if not after.full and before.end != after.start:
            raise ValueError(f"part {after.name!r} does not follow {before.name!r}")
    for part in parts[:1]:
        if not part.full:
            raise ValueError(f"there is no full backup before {part.name!r}")
    for part in parts:
        # a name with a directory in it could lead out of the repository
        if os.path.basename(part.name) != part.name or not 0 <= part.start < part.end or len(part.tid) != 8:
            raise ValueError(f"part {part.name!r} is none")
    return parts


def _blob_list(fields: dict[str, Any] | None) -> BlobList | None:
    made = None if fields is None else BlobList(**fields)
    if made is not None and os.path.basename(made.name) != made.name:
        raise ValueError(f"list of blobs {made.name!r} is none")
    return made


class Backup:
    """One backup of the file `source` into the directory `repository`: run `steps`, then read what was made."""

    def __init__(
        self, source: str, repository: str, *, full: bool = False, quick: bool = False, blob_dir: str | None = None
    ) -> None:
        """Prepare a backup, with the blobs in `blob_dir`, if that is given.

        `full` asks for a whole copy; `quick` trusts that the file is the one backed up before when the last part
        agrees, without reading again all that is backed up already.
        """
        self.source = source
        self.part: Part | None = None
        self.reason = ""
        self._full = full
        self._quick = quick
        self._blob_dir = blob_dir
        self._reader = open_reader(source)
        try:
            durable.make_directories(repository)
        except OSError as error:
            raise failure(repository, error) from error
        self._directory = repository

    def steps(self) -> Iterator[Progress]:
        """Do it, in small steps. Afterwards `part` is what was made, None if there was nothing new to save.

        `reason` tells why a full part was made.
        """
        with closing(_lock(self._directory)):
            repository = Repository(self._directory)
            contents = read_contents(self._reader, read_only=True)
            start = yield from self._start(repository, contents.end)
            if start < contents.end:
                made = datetime.now(UTC)
                kind = "delta" if start else "full"
                name = f"{made:%Y-%m-%dT%H-%M-%S.%f}.{kind}"
                blobs = yield from self._save_blobs(repository, name, start, contents.end)
                digest = yield from self._copy(os.path.join(self._directory, name), start, contents.end)
                self.part = Part(name, start, contents.end, digest, contents.last_tid.hex(), made.isoformat(), blobs)
                repository.add(self.part)

    def _save_blobs(
        self, repository: Repository, name: str, start: int, end: int
    ) -> Generator[Progress, None, BlobList | None]:
        if self._blob_dir is None:
            return None
        after = successor(repository.chain()[-1].tid) if start else None
        source = BlobDirectory(self._blob_dir, read_only=True)
        records = blob_records(Log(self._reader, end), after)
        listed = yield from SavedBlobs(self._directory).save(source, records, name + ".blobs")
        if listed.lost and not os.path.samestat(os.stat(self.source), os.fstat(self._reader.descriptor.fd)):
            raise StorageError(f"{self.source}: was packed during the backup, which lacks blobs now: try again")
        return listed

    def _start(self, repository: Repository, end: int) -> Generator[Progress, None, int]:
        """Return from which byte on the file is to be copied: 0 for a full backup."""
        chain = repository.chain()
        if self._full or not chain:
            self.reason = "as asked" if self._full else "the first"
            return 0
        if self._blob_dir is None and chain[-1].blobs is not None:
            reason = "the backups so far have blobs: say where they are, or that a full backup is to be without them"
            raise StorageError(f"{repository.path}: {reason}")
        if self._blob_dir is not None and any(part.blobs is None for part in chain):
            self.reason = "the first with blobs"
            return 0
        total = sum(part.end - part.start for part in chain)
        done = 0
        for part in chain[-1:] if self._quick else chain:
            if end < part.end or (yield from self._digest(part, done, total)) != part.sha256:
                self.reason = "the file is not a continuation of what is backed up: it was packed or replaced"
                return 0
            done += part.end - part.start
        return chain[-1].end

    def _digest(self, part: Part, done: int, total: int) -> Generator[Progress, None, str]:
        digest = hashlib.sha256()
        for block in _blocks(self._reader, part.start, part.end):
            digest.update(block)
            done += len(block)
            yield Progress("comparing", done, total)
        return digest.hexdigest()

    def _copy(self, path: str, start: int, end: int) -> Generator[Progress, None, str]:
        """Write the bytes from `start` to `end` to a new file at `path`; return their digest."""
        digest = hashlib.sha256()
        with _building(path) as file:
            for block in _blocks(self._reader, start, end):
                digest.update(block)
                file.write(block)
                yield Progress("backing up", file.tell(), end - start)
        return digest.hexdigest()


def _blocks(reader: Reader, start: int, end: int) -> Iterator[bytes]:
    """Walk the bytes from `start` to `end`; StorageError if the file is shorter."""
    while start < end:
        block = os.pread(reader.descriptor.fd, min(_BLOCK_BYTES, end - start), start)
        if not block:
            raise StorageError(f"{reader.path}: ends at byte {start}, {end} expected")
        yield block
        start += len(block)


@contextmanager
def _building(path: str) -> Iterator[BufferedRandom]:
    """Give a file that gets the name `path` when it is complete and on disk, and is removed otherwise."""
    temporary = path + ".part"
    try:
        with open(temporary, "wb+") as file:
            yield file
            file.flush()
            durable.sync_file(file.fileno())
        durable.replace_file(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # the failure that brought us here is the one to tell
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise failure(path, error) from error
        raise


def _lock(directory: str) -> zc.lockfile.LockFile:
    path = os.path.join(directory, "lock")
    try:
        return zc.lockfile.LockFile(path)
    except zc.lockfile.LockError:
        raise FileLockedError(directory) from None
    except OSError as error:
        raise failure(path, error) from error


class Restore:
    """Makes the new file `target` of what is in a repository: as it was last, or as of the tid `at`."""

    def __init__(self, repository: str, target: str, *, at: Tid | None = None, blob_dir: str | None = None) -> None:
        """Choose what to restore; StorageError if the repository has nothing, or the target exists.

        Blobs, if the backups have them, go to `blob_dir`, which must not exist either; they are left out without it.
        """
        refuse_existing(target)
        if blob_dir is not None:
            refuse_existing(blob_dir)
        self.blobs = 0
        self.lost_blobs = 0
        self._blob_dir = blob_dir
        self._repository = _existing(repository)
        self._target = target
        self._at = at
        self.parts = self._chosen()
        self.last_tid = self.parts[-1].tid

    def steps(self) -> Iterator[Progress]:
        """Do it, in small steps; every part is verified, and the file appears with the last step."""
        total = self.parts[-1].end
        with _building(self._target) as file:
            done = 0
            for part in self.parts:
                for block in _verified(self._repository, part):
                    file.write(block)
                    done += len(block)
                    yield Progress("restoring", done, total)
            if self._at is not None and self.parts[-1].tid > self._at:
                file.flush()
                self._cut(file, self._at)
            yield from self._restore_blobs()
            if os.path.exists(self._target + ".index"):
                os.unlink(self._target + ".index")  # of a file that is gone: a hint that would mislead

    def _chosen(self) -> list[Part]:
        parts = self._repository.parts
        if self._at is None:
            return self._repository.chain()
        # The first part that reaches so far: it is the one nearest to that moment, before any later pack. But not one
        # that a later backup contradicts: then the file had been replaced by an earlier state of it.
        reaching, earliest = -1, MAX_TID
        for number, part in reversed(list(enumerate(parts))):
            earliest = min(earliest, part.tid)
            if self._at <= part.tid == earliest:
                reaching = number
        return self._repository.chain(reaching)

    def _restore_blobs(self) -> Iterator[Progress]:
        """Restore the blobs of what is restored; their directory gets its name when all are there."""
        lists = [part.blobs for part in self.parts if part.blobs is not None]
        if self._blob_dir is None or not any(listed.count for listed in lists):
            return
        building, saved = self._blob_dir + ".part", SavedBlobs(self._repository.path)
        if os.path.exists(building):
            shutil.rmtree(building)
        target = BlobDirectory(building, layout=lists[0].layout)
        for listed in lists:
            wanted = [blob for blob in saved.listed(listed) if blob.tid <= self.last_tid]
            self.blobs += sum(1 for blob in wanted if blob.sha256)
            self.lost_blobs += sum(1 for blob in wanted if not blob.sha256)
            yield from saved.restore(listed, target, self.last_tid)
        durable.replace_file(building, self._blob_dir)

    def _cut(self, file: BufferedRandom, at: Tid) -> None:
        """Cut off the transactions after `at`."""
        reader = Reader(self._target, Descriptor(file.name, os.O_RDONLY))
        last, end = None, MAGIC_SIZE
        for part in Walk(reader).parts():
            if isinstance(part, Damage):
                raise StorageError(f"{self._repository.path}: the file backed up is damaged at byte {part.start}")
            if part.tid > at:
                if part.status == STATUS_PACKED:
                    moment = tid_repr(at)
                    raise StorageError(f"{self._repository.path}: no backup has the state as of {moment}: packed since")
                break
            last, end = part.tid, part.end
        if last is None:
            raise StorageError(f"{self._repository.path}: nothing was committed up to {tid_repr(at)}")
        self.last_tid = last
        os.ftruncate(file.fileno(), end)


def verify(repository: str) -> Iterator[Progress | str]:
    """Read all parts of a repository and yield a line for each that is not what the manifest says."""
    known = _existing(repository)
    total, done = sum(part.end - part.start for part in known.parts), 0
    for part in known.parts:
        try:
            for block in _verified(known, part):
                done += len(block)
                yield Progress("verifying", done, total)
        except StorageError as error:
            yield str(error)
        if part.blobs is not None:
            yield from SavedBlobs(known.path).verify(part.blobs)


def _existing(path: str) -> Repository:
    repository = Repository(path)
    if not repository.parts:
        raise StorageError(f"{path}: no backups here: there is no {_MANIFEST}, or nothing in it")
    return repository


def _verified(repository: Repository, part: Part) -> Iterator[bytes]:
    """Walk the bytes of a part; StorageError, at the latest at its end, if they are not those that were saved."""
    path, digest = repository.file(part), hashlib.sha256()
    try:
        reader = Reader(path, Descriptor(path, os.O_RDONLY))
        size = os.fstat(reader.descriptor.fd).st_size
    except OSError as error:
        raise failure(path, error) from error
    if size != part.end - part.start:
        raise StorageError(f"{path}: has {size} bytes, {part.end - part.start} were saved")
    for block in _blocks(reader, 0, size):
        digest.update(block)
        yield block
    if digest.hexdigest() != part.sha256:
        raise StorageError(f"{path}: damaged: its bytes are not those that were saved (SHA-256)")
