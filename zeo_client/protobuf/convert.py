"""Conversion: pickled records of classes that came to have a protobuf message are written anew, with the message.

The class does the work: its objects are loaded, with the pickled state as `__setstate__` gets it, and stored again. So
this runs the application's code. What a class makes of such states, ProtobufObject.__setstate__ tells: by default each
attribute becomes the field of its name.

A check goes first, which writes nothing: whatever the schema has no place for is told before anything is changed.
Conversion is resumed by beginning again, since what is converted is no pickle any more.
"""

from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple

import transaction

from zeo_client.db import DB
from zeo_client.protobuf.records import register
from zeo_client.serialize import ObjectWriter, dotted_name
from zeo_core.errors import RecordFormatError, ZeodError
from zeo_core.ids import Oid
from zeo_core.protobuf_record import PREFIX
from zeo_core.record import PICKLE, class_name, format_name
from zeo_core.storage import Progress

__all__ = ["Conversion", "Unconvertible"]

_KEPT_FAULTS: Final = 1000  # the rest is counted: one mistake in a schema is as many faults as there are objects
_STEP: Final = 1000  # objects looked at between two reports of progress
_MINIMIZE: Final = 500  # objects checked before their states are let go of


class Unconvertible(NamedTuple):
    """An object that cannot be converted, and why."""

    oid: Oid
    class_name: str
    reason: str


class Conversion:
    """Converts the objects of some classes, by the dotted names that stand in their records, in one storage.

    The storage is closed with the conversion. A read-only one is enough for `check`.
    """

    def __init__(self, storage: Any, class_names: Collection[str], batch: int = 1000) -> None:
        """Prepare; `batch` is how many objects a transaction converts."""
        register()
        self._storage = storage
        self._class_names = frozenset(class_names)
        self._batch = batch
        self._db = DB(storage)
        self.found = 0
        """Pickled objects of the classes, as the last check saw them."""
        self.already = 0
        """Objects of the classes that have their message already."""
        self.converted = 0
        """Objects converted so far."""
        self.pickled_bytes = 0
        """The size of those records found that can be converted."""
        self.message_bytes = 0
        """What they would take, or take, with messages."""
        self.faults: list[Unconvertible] = []
        """Objects that cannot be converted, the first thousand of them."""
        self.fault_count = 0
        self._hopeless: set[Oid] = set()

    def check(self) -> Iterator[Progress]:
        """Walk all objects and try those of the classes; write nothing. Progress is counted in objects."""
        self.found = self.already = self.pickled_bytes = self.message_bytes = self.fault_count = 0
        self.faults.clear()
        self._hopeless.clear()
        with closing(self._db.open(transaction.TransactionManager(explicit=True))) as connection:
            connection.transaction_manager.begin()
            writer = ObjectWriter(connection)
            for seen, (oid, data) in enumerate(self._objects(), 1):
                if seen % _STEP == 0:
                    yield self._progress("checking", seen)
                if data is not None:
                    self.found += 1
                    self._try(connection, writer, oid, data)
                    if self.found % _MINIMIZE == 0:
                        connection.cacheMinimize()
            connection.transaction_manager.abort()
            connection.cacheMinimize()

    def convert(self) -> Iterator[Progress]:
        """Convert all that the check found good, a batch in a transaction; an interrupted one loses a batch at most."""
        waiting: list[Oid] = []
        with closing(self._db.open(transaction.TransactionManager(explicit=True))) as connection:
            for seen, (oid, data) in enumerate(self._objects(), 1):
                if data is not None and oid not in self._hopeless:
                    waiting.append(oid)
                if len(waiting) >= self._batch:
                    self._commit(connection, waiting)
                    waiting.clear()
                if seen % _STEP == 0:
                    yield self._progress("converting", seen)
            if waiting:
                self._commit(connection, waiting)

    def close(self) -> None:
        """Close the storage."""
        self._db.close()

    def _objects(self) -> Iterator[tuple[Oid, bytes | None]]:
        """Walk all objects, with the pickled record of those that are to be converted."""
        following: Oid | None = None
        while True:
            oid, _, data, following = self._storage.record_iternext(following)
            yield oid, data if self._is_wanted(data) else None
            if following is None:
                return

    def _is_wanted(self, data: bytes) -> bool:
        try:
            if class_name(data) not in self._class_names:
                return False
        except RecordFormatError:
            return False  # `zeofs check` tells of those
        if format_name(data) == PICKLE:
            return True
        self.already += data.startswith(PREFIX)
        return False

    def _try(self, connection: Any, writer: ObjectWriter, oid: Oid, data: bytes) -> None:
        try:
            obj = connection.get(oid)
            obj._p_activate()  # noqa: SLF001 - persistent's name
            record = _with_message(obj, writer.serialize(obj))
        except Exception as error:  # noqa: BLE001 - whatever the application's code raises
            self.fault_count += 1
            self._hopeless.add(oid)
            if len(self.faults) < _KEPT_FAULTS:
                self.faults.append(Unconvertible(oid, class_name(data), _reason(error)))
        else:
            self.pickled_bytes += len(data)
            self.message_bytes += len(record)

    def _commit(self, connection: Any, oids: list[Oid]) -> None:
        manager = connection.transaction_manager
        manager.begin()
        try:
            for oid in oids:
                obj = connection.get(oid)
                obj._p_activate()  # noqa: SLF001
                obj._p_changed = True
            manager.get().note(f"{len(oids)} objects converted to protobuf")
            manager.commit()
        except BaseException:
            manager.abort()
            raise
        self.converted += len(oids)
        connection.cacheMinimize()

    def _progress(self, phase: str, seen: int) -> Progress:
        return Progress(phase, seen, max(seen, len(self._storage)))


def _with_message(obj: Any, record: bytes) -> bytes:
    if not record.startswith(PREFIX):
        raise TypeError(f"{dotted_name(obj)} has no protobuf message for a state")
    return record


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, ZeodError) and error.__cause__ is not None else error
    return f"{type(cause).__name__}: {cause}"
