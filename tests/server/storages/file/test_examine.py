"""Examining records: what the plainest way finds, in one process and in several."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.storages.file.build import File
from tests.server.storages.file.test_graph import record
from zeo_core.errors import RecordFormatError, StorageError
from zeo_core.ids import Oid, oid_repr, pack_id, unpack_id
from zeo_core.record import references, register_format
from zeo_server.storages.file.examine import Examiner, Part
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.walk import open_reader

OIDS = st.one_of(st.integers(0, 6), st.just(2**40), st.just(2**64 - 1)).map(pack_id)
RECORDS = st.one_of(
    st.lists(OIDS, max_size=4).map(lambda oids: record(*oids)),
    st.just(0),  # a deletion
    st.sampled_from([b"x", record()[:-1], record(pack_id(1)) + b"K", b"{unknown}"]),
    st.binary(min_size=1, max_size=20),
)
OBJECTS = st.lists(st.tuples(OIDS, RECORDS), min_size=1, max_size=4, unique_by=lambda pair: pair[0])
TRANSACTIONS = st.lists(OBJECTS, min_size=1, max_size=6)


def examiner_of(path: Path, file: File) -> tuple[Examiner, list[Part]]:
    path.write_bytes(file.content)
    numbers, deletions = Numbers(), dict[int, int]()
    for oid, position in file.current.items():
        numbers.set(unpack_id(oid), position)
        if file.content[position + 34 : position + 50] == bytes(16):
            deletions[unpack_id(oid)] = position
    ends = [*file.starts[1:], len(file.content)]
    reader = open_reader(str(path))
    return Examiner(reader, len(file.content), numbers, deletions), list(zip(file.starts, ends, strict=True))


def plainly(file: File) -> list[tuple[int, str]]:
    """Find the same in the plainest way."""
    records: dict[Oid, bytes] = {}
    for oid, position in file.current.items():
        size = int.from_bytes(file.content[position + 34 : position + 42], "big")
        if size:
            records[oid] = file.content[position + 42 : position + 42 + size]
    faults = []
    for oid, data in records.items():
        try:
            missing = set(references(data)) - set(records)
        except RecordFormatError as error:
            faults.append((file.current[oid], f"the record of oid {oid_repr(oid)} cannot be read: {error}"))
            continue
        told = [f"oid {oid_repr(oid)} refers to oid {oid_repr(target)}, which does not exist" for target in missing]
        faults += [(file.current[oid], text) for text in told]
    return sorted(faults)


@pytest.mark.parametrize("processes", [1, 2])
def test_it_finds_what_the_plainest_way_finds(tmp_path: Path, processes: int) -> None:
    @settings(max_examples=150 if processes == 1 else 5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TRANSACTIONS)
    def compare(transactions: list[list[tuple[Oid, bytes | int]]]) -> None:
        file = File()
        for objects in transactions:
            file.add(*objects)
        examiner, parts = examiner_of(tmp_path / "Data.fs", file)
        examined = list(examiner.examine_all(parts, processes))
        assert [part.end for part in examined] == [end for _, end in parts]
        assert sorted(fault for part in examined for fault in part.faults) == plainly(file)
        assert sum(part.fault_count for part in examined) == len(plainly(file))

    compare()


def test_records_at_the_edges_of_what_is_read_at_once(tmp_path: Path) -> None:
    file = File()
    for number in range(1, 9):
        text = b"x" * 300_000 * number
        long_one = b"\x80\x03cx\nY\n.\x80\x03X" + len(text).to_bytes(4, "little") + text + b"."
        file.add((pack_id(number), long_one), (pack_id(number + 100), record(pack_id(number), pack_id(999))))
    examiner, parts = examiner_of(tmp_path / "Data.fs", file)
    examined = list(examiner.examine_all([(parts[0][0], parts[-1][1])]))
    assert sorted(examined[0].faults) == plainly(file)
    assert examined[0].fault_count == 8


class _Deadly:
    """A format whose records end the process that reads them."""

    def references(self, data: bytes) -> list[Oid]:
        os._exit(3)

    def class_name(self, data: bytes) -> str:
        return "none"


def test_a_process_that_is_ended_ends_the_check(tmp_path: Path) -> None:
    register_format("deadly", _Deadly())
    file = File().add((pack_id(1), record())).add((pack_id(2), b"{deadly}"))
    examiner, parts = examiner_of(tmp_path / "Data.fs", file)
    with pytest.raises(StorageError, match="a process that read records of it was ended"):
        list(examiner.examine_all(parts, 2))
