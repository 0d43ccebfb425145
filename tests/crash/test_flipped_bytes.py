"""Any one byte of the last transaction is another one: never is a part of the transaction taken for the whole.

A Data.fs has no checksums. What nothing in it can tell are other data, another user or description, and another oid of
a new object. Any other byte is found out, by its position, at the opening or where it is read, or makes no difference.
"""

import contextlib
import os
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.server.storages.file.graphs import node, state
from zeo_core.errors import FileFormatError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage

OIDS = [pack_id(number) for number in range(6)]
NEW = pack_id(5)


class Written(NamedTuple):
    """A file, where its last transaction starts, and the states before and after that."""

    content: bytes
    start: int
    states: list[dict[Oid, bytes]]
    tids: list[Tid]


def commit(storage: FileStorage, *writes: ObjectWrite) -> Tid:
    group = storage.write_group([PreparedTransaction(TransactionMetadata(b"user", b"what", b""), writes)])
    storage.publish(group)
    return group.tids[0]


def write(path: Path) -> Written:
    """Write a transaction of all kinds of records: changed, repeated, deleted, created."""
    with closing(FileStorage(path)) as storage:
        first = commit(storage, *(ObjectWrite(oid, ZERO_TID, node(text="first")) for oid in OIDS[:5]))
        second = commit(storage, ObjectWrite(OIDS[3], first, node(text="changed")))
        states, start = [state(storage, OIDS)], storage.byte_size()
        last = commit(
            storage,
            ObjectWrite(OIDS[1], first, node(2, text="new")),
            ObjectWrite(OIDS[2], first, node(1, text="new")),
            ObjectWrite(OIDS[3], second, node(text="first"), first),
            ObjectWrite(OIDS[4], first, None),
            ObjectWrite(NEW, ZERO_TID, node(text="created")),
        )
        states.append(state(storage, OIDS))
    os.unlink(f"{path}.index")
    return Written(path.read_bytes(), start, states, [second, last])


def untold(written: Written) -> set[int]:
    """Return the positions of the bytes that nothing else in the file says anything about."""
    texts = written.start + 23
    positions = set(range(texts, texts + len(b"userwhat")))
    for data in (node(2, text="new"), node(1, text="new"), node(text="created")):
        at = written.content.index(data, written.start)
        positions.update(range(at, at + len(data)))
    new = written.content.index(NEW, written.start)
    return positions | set(range(new, new + 8))


def refused(error: FileFormatError, positions: range) -> str:
    assert error.position in positions
    assert f"byte {error.position}" in str(error)
    return "refused"


def check(path: Path, written: Written, position: int, byte: int, *, is_told: bool) -> str:
    """Open the file with another byte and return what came of it; assert that it is nothing worse."""
    content = bytearray(written.content)
    content[position] = byte
    path.write_bytes(content)
    for remains in path.parent.glob("Data.fs.*"):
        remains.unlink()
    try:
        with closing(FileStorage(path)) as storage:
            found, last_tid = state(storage, OIDS), storage.last_tid()
    except FileFormatError as error:
        return refused(error, range(written.start, len(content)))
    if (found, last_tid) == (written.states[0], written.tids[0]):
        return "before"
    assert last_tid == written.tids[1]
    if is_told:
        assert found == written.states[1]
    else:
        differing = {oid for oid in OIDS if found.get(oid) != written.states[1].get(oid)}
        # of a new object that has got the oid of another one, that one too
        assert len(differing - {NEW}) <= 1
    return "after"


def flip(path: Path, masks: list[int]) -> None:
    written = write(path)
    untold_at, came = untold(written), set()
    for position in range(written.start, len(written.content)):
        for mask in masks:
            byte = written.content[position] ^ mask
            came.add(check(path, written, position, byte, is_told=position not in untold_at))
    assert came == {"refused", "before", "after"}


def test_bits_flipped_in_every_byte(tmp_path: Path) -> None:
    flip(tmp_path / "Data.fs", [1, 0x80, 0xFF])


@pytest.mark.slow
def test_every_bit_and_other_flips(tmp_path: Path) -> None:
    flip(tmp_path / "Data.fs", [*(1 << bit for bit in range(8)), 0x0F, 0x50, 0xAA, 0xF7])


def test_damage_is_found_with_an_index_too(tmp_path: Path) -> None:
    """An index that was saved describes the file as it was, and hides nothing."""
    path = tmp_path / "Data.fs"
    written = write(path)
    with closing(FileStorage(path)):
        pass
    index = Path(f"{path}.index").read_bytes()
    untold_at = untold(written)
    for position in range(written.start, len(written.content)):
        content = bytearray(written.content)
        content[position] ^= 1
        path.write_bytes(content)
        Path(f"{path}.index").write_bytes(index)
        with contextlib.suppress(FileFormatError), closing(FileStorage(path)) as storage:
            found = state(storage, OIDS)
            assert position in untold_at or found in written.states
