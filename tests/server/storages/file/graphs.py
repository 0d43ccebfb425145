"""Records that refer to each other, and storages full of them."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

from zodbpickle import binary, pickle

from zeo_core.ids import MAX_TID, ZERO_TID, Oid, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage

ROOT = pack_id(0)


class _Reference:
    def __init__(self, target: object) -> None:
        self.target = target


def record(*targets: object, text: str = "") -> bytes:
    """Return an object's record that refers to `targets`: oids, or lists as weak and foreign references have them."""
    file = BytesIO()
    pickler = pickle.Pickler(file, 3)
    pickler.persistent_id = lambda value: value.target if isinstance(value, _Reference) else None
    pickler.dump(("module", "Class"))
    state = [_Reference(binary(target) if isinstance(target, bytes) else target) for target in targets]
    pickler.dump({"items": state, "text": text})
    return file.getvalue()


def node(*targets: int, text: str = "") -> bytes:
    """Return a record that refers to objects by the numbers of their oids."""
    return record(*map(pack_id, targets), text=text)


def group(storage: FileStorage, objects: Mapping[int, bytes | None]) -> Any:
    """Write, but do not publish, a transaction with objects by the numbers of their oids."""
    writes = tuple(ObjectWrite(pack_id(number), ZERO_TID, data) for number, data in objects.items())
    return storage.write_group([PreparedTransaction(TransactionMetadata(), writes)])


def commit(storage: FileStorage, objects: Mapping[int, bytes | None]) -> bytes:
    """Commit objects by the numbers of their oids, None for a deletion, and return the tid."""
    written = group(storage, objects)
    storage.publish(written)
    tid: bytes = written.tids[0]
    return tid


def repeat(storage: FileStorage, number: int, tid: bytes) -> bytes:
    """Commit a record that repeats what transaction `tid` wrote, as undo does, and return the tid."""
    oid = pack_id(number)
    write = ObjectWrite(oid, ZERO_TID, storage.load_serial(oid, tid), tid)
    written = storage.write_group([PreparedTransaction(TransactionMetadata(), (write,))])
    storage.publish(written)
    return written.tids[0]


def state(storage: FileStorage, oids: Iterable[Oid], before: bytes = MAX_TID) -> dict[Oid, bytes]:
    """Return the data, as of a tid, of those of the objects that exist."""
    found = {}
    for oid in oids:
        try:
            revision = storage.load_before(oid, before)
        except KeyError:
            continue
        if revision is not None:
            found[oid] = revision.data
    return found
