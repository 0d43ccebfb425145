"""The two layouts of a blob directory: names to ids and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeo_core.blob_layout import BUSHY, LAWN, LAYOUTS, Layout, file_name, tid_of
from zeo_core.ids import pack_id

IDS = st.binary(min_size=8, max_size=8)


@pytest.mark.parametrize(
    ("layout", "oid", "directory"),
    [
        (BUSHY, pack_id(0), "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00"),
        (BUSHY, bytes.fromhex("0123456789abcdef"), "0x01/0x23/0x45/0x67/0x89/0xab/0xcd/0xef"),
        (LAWN, pack_id(0), "0x00"),
        (LAWN, pack_id(0x1234), "0x1234"),
        (LAWN, pack_id(0x123), "0x0123"),
    ],
)
def test_directories_are_named_as_zodb_names_them(layout: Layout, oid: bytes, directory: str) -> None:
    assert layout.directory(oid) == directory
    assert layout.oid_of(tuple(directory.split("/"))) == oid


@given(IDS, st.sampled_from(sorted(LAYOUTS)))
@settings(max_examples=50, deadline=None)
def test_a_directory_tells_its_oid(oid: bytes, name: str) -> None:
    layout = LAYOUTS[name]
    assert layout.oid_of(tuple(layout.directory(oid).split("/"))) == oid


@given(IDS)
@settings(max_examples=50, deadline=None)
def test_a_file_tells_its_tid(tid: bytes) -> None:
    assert tid_of(file_name(tid)) == tid


@pytest.mark.parametrize("name", ["0x12", "12.blob", "0x.blob", "0x123.blob", "0x12.blob.tmp", "0xGG.blob", "x.blob"])
def test_other_files_are_no_blobs(name: str) -> None:
    assert tid_of(name) is None


@pytest.mark.parametrize("names", [(), ("0x00",), ("0x00",) * 9, ("0x0",) * 8, (*("0x00",) * 7, "tmp")])
def test_other_directories_are_no_objects(names: tuple[str, ...]) -> None:
    assert BUSHY.oid_of(names) is None
