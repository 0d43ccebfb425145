"""The index against a dictionary, and its file against ZODB's."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ZODB.fsIndex import fsIndex

from zeo_core.ids import Oid, pack_id
from zeo_server.storages.file.index import Entries, Index, add_entry

oids = st.one_of(st.integers(0, 70_000), st.integers(0, 2**64 - 1)).map(pack_id)
positions = st.integers(1, 2**48 - 1)


def index_of(content: dict[Oid, int]) -> Index:
    entries: Entries = {}
    for oid, position in content.items():
        add_entry(entries, oid, position)
    index = Index()
    index.update(entries)
    return index


@given(st.lists(st.dictionaries(oids, positions, max_size=30), max_size=4), oids)
def test_it_is_a_mapping(updates: list[dict[Oid, int]], other: Oid) -> None:
    index, model = Index(), dict[Oid, int]()
    for update in updates:
        entries: Entries = {}
        for oid, position in update.items():
            add_entry(entries, oid, position)
        index.update(entries)
        model.update(update)
    assert len(index) == len(model)
    assert index.highest_oid() == max(model, default=bytes(8))
    assert index.position(other) == model.get(other, 0)
    assert {oid: index.position(oid) for oid in model} == model


@settings(max_examples=30)
@given(st.dictionaries(oids, positions, max_size=40), st.integers(4, 2**48))
def test_zodb_reads_what_is_saved_and_the_reverse(
    tmp_path_factory: pytest.TempPathFactory, content: dict[Oid, int], end: int
) -> None:
    directory = tmp_path_factory.mktemp("index")
    ours, theirs = directory / "ours", directory / "theirs"
    ours.write_bytes(b"".join(index_of(content).saved(end)))
    loaded = fsIndex.load(str(ours))
    assert loaded["pos"] == end
    assert dict(loaded["index"].items()) == content
    fsIndex(content).save(end, str(theirs))
    for path in (ours, theirs):
        index, saved_end = Index.load(str(path))
        assert saved_end == end
        assert len(index) == len(content)
        assert {oid: index.position(oid) for oid in content} == content


def test_an_index_written_by_python_2_is_read(tmp_path: Path) -> None:
    arrays = b"\0\1" + (1234).to_bytes(6, "big")
    # Python 2's strings: the opcodes SHORT_BINSTRING and TUPLE2 of protocol 1 and 2.
    pair = b"\x80\x02(U\x06" + bytes(6) + b"U\x08" + arrays + b"tq\x00."
    (tmp_path / "index").write_bytes(pickle.dumps(5000, 1) + pair + pickle.dumps(None, 1))
    index, end = Index.load(str(tmp_path / "index"))
    assert (end, index.position(pack_id(1)), len(index)) == (5000, 1234, 1)


SAVED = b"".join(index_of({pack_id(number * 1000): number + 1 for number in range(100)}).saved(10_000))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        SAVED[:-4],
        SAVED[:20],
        pickle.dumps({"pos": 4, "index": {}}),
        pickle.dumps("text"),
        pickle.dumps(4) + pickle.dumps((b"short", b"x" * 8)),
        pickle.dumps(4) + pickle.dumps((bytes(6), b"x" * 9)),
        pickle.dumps(4) + pickle.dumps((bytes(6), b"")),
        pickle.dumps(4) + pickle.dumps(17),
        b"cos\nsystem\n(S'false'\ntR.",
    ],
)
def test_what_is_no_index_is_a_value_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "Data.fs.index").write_bytes(content)
    with pytest.raises(ValueError, match=r"Data\.fs\.index: no index"):
        Index.load(str(tmp_path / "Data.fs.index"))


def test_a_missing_index_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Index.load(str(tmp_path / "Data.fs.index"))


@pytest.mark.parametrize("count", [1, 5, 100])
def test_samples_are_entries_from_all_over(count: int) -> None:
    content = {pack_id(number * 20_000): number + 1 for number in range(100)}
    samples = list(index_of(content).samples(count))
    assert 1 <= len(samples) <= count + 2
    assert dict(samples).items() <= content.items()
    assert list(Index().samples(count)) == []


def test_it_takes_8_bytes_an_object_on_disk() -> None:
    index = index_of({pack_id(number): number + 1 for number in range(65_536)})
    assert sum(map(len, index.saved(4))) < 65_536 * 8 + 100
    assert index.memory_bytes() == 65_536 * 8
