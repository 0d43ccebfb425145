"""Objects with a Protocol Buffers message for a state beside pickled ones: commit them, read them, change them.

    python -m benchmarks.protobuf [--objects N] [--repeats N] [--cpu]

Both kinds have the same attributes, and take turns in one process, on storages in memory and in files: what the storage
does is in both columns. `ratio` is how many times faster the messages are than the pickles; 0.67 means that they take
one and a half times as long.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import transaction
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from persistent import Persistent
from persistent.list import PersistentList

from benchmarks.figures import Figure, table
from zeo_client.db import DB
from zeo_client.protobuf import ProtobufPersistent, register
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

__all__ = ["KINDS", "Message", "Pickled", "figures"]

_Field = descriptor_pb2.FieldDescriptorProto


def _message_class() -> Any:
    """Return the class of the messages; programs have it from protoc."""
    package = "zeod.benchmarks"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.message_type.add(name="Ref").field.add(
        name="_p_refid", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_UINT32
    )
    fields = file.message_type.add(name="Item").field
    fields.add(name="number", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_INT32)
    fields.add(name="name", number=2, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    fields.add(name="tags", number=3, label=_Field.LABEL_REPEATED, type=_Field.TYPE_STRING)
    parent = fields.add(name="parent", number=4, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_MESSAGE)
    parent.type_name = f".{package}.Ref"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Item"))


class Message(ProtobufPersistent, message=_message_class()):
    """An object with a message for a state: a few attributes, a reference."""


class Pickled(Persistent):
    """The same, pickled."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


KINDS: dict[str, Callable[..., Any]] = {"pickles": Pickled, "messages": Message}


class _Turn:
    """A database of one kind of objects, and the time of what is done with it."""

    def __init__(self, storage: Any, kind: str, objects: int, clock: Callable[[], float]) -> None:
        self._db = DB(storage, cache_size=2 * objects)
        self._make = KINDS[kind]
        self._objects = objects
        self._clock = clock
        self._manager = transaction.TransactionManager()

    def run(self) -> dict[str, float]:
        """Return the seconds of each task."""
        conn = self._db.open(self._manager)
        conn.root()["items"] = items = PersistentList()
        self._manager.commit()
        return {
            "make objects": self._timed(lambda: self._make_all(items)),
            "commit new objects": self._timed(self._manager.commit),
            "read objects": self._timed(lambda: self._read(conn)),
            "change objects": self._timed(lambda: self._change(items)),
            "commit changed objects": self._timed(self._manager.commit),
        }

    def close(self) -> None:
        """End it, and the storage with it."""
        self._manager.abort()
        self._db.close()

    def _timed(self, task: Callable[[], None]) -> float:
        gc.collect()
        start = self._clock()
        task()
        return self._clock() - start

    def _make_all(self, items: Any) -> None:
        make = self._make
        items.extend(
            make(number=number, name=f"item number {number}", tags=["a", "b", "c"], parent=items)
            for number in range(self._objects)
        )

    def _read(self, conn: Any) -> None:
        conn.cacheMinimize()
        for item in conn.root()["items"]:
            if item.parent is None or not item.name:
                raise ValueError("an object came back without its attributes")

    def _change(self, items: Any) -> None:
        for item in items:
            item.number += 1


def _storage(place: str, directory: str, kind: str) -> Any:
    return MappingStorage() if place == "memory" else FileStorage(str(Path(directory, f"{kind}.fs")))


def figures(repeats: int, objects: int = 10_000, clock: Callable[[], float] = time.perf_counter) -> Iterator[Figure]:
    """Measure every task with both kinds of objects, taking turns; microseconds for each object."""
    register()
    for place in ("memory", "file"):
        found: dict[str, Figure] = {}
        for turn in range(repeats + 1):
            with tempfile.TemporaryDirectory(dir=".") as directory:
                for kind in KINDS:
                    measured = _Turn(_storage(place, directory, kind), kind, objects, clock)
                    for task, seconds in measured.run().items():
                        if turn:  # the first warms up
                            figure = found.setdefault(task, Figure(f"{task}, {place}", "us"))
                            figure.add(kind, seconds / objects * 1e6)
                    measured.close()
        yield from found.values()


@click.command()
@click.option("--objects", default=10_000, show_default=True, help="Objects in the database.")
@click.option("--repeats", default=5, show_default=True, help="Turns of each kind of objects.")
@click.option("--cpu", is_flag=True, help="Count CPU time instead of the clock's.")
def main(objects: int, repeats: int, cpu: bool) -> None:
    """Time objects with messages and pickled ones side by side."""
    for line in table(figures(repeats, objects, time.process_time if cpu else time.perf_counter)):
        click.echo(line)


if __name__ == "__main__":
    main()
