"""The storage contract: what signatures can say, and that the storages there are keep to them."""

import inspect
from collections.abc import Sequence

import pytest
import ZODB.interfaces

from zeo_client.blob_storage import BlobClientStorage
from zeo_client.storage import ClientStorage
from zeo_core import storage
from zeo_core.ids import Oid, Tid
from zeo_core.storage import Commits, InvalidationSink, Iterates, Loads, ServedStorage, Transacts, TransactsBlobs
from zeo_core.transaction import Revision
from zeo_server.storages.demo_blobs import BlobDemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_storage import BlobFileStorage
from zeo_server.storages.mapping import MappingStorage

PROTOCOLS: list[type] = [
    Loads,
    Iterates,
    Commits,
    ServedStorage,
    Transacts,
    TransactsBlobs,
    InvalidationSink,
    storage.WrittenGroup,
]

KEPT: list[tuple[type, type]] = [
    (MappingStorage, ServedStorage),
    (MappingStorage, Transacts),
    (FileStorage, ServedStorage),
    (FileStorage, Transacts),
    (BlobFileStorage, TransactsBlobs),
    (BlobDemoStorage, TransactsBlobs),
    (ClientStorage, Transacts),
    (BlobClientStorage, TransactsBlobs),
]


def methods_of(protocol: type) -> dict[str, inspect.Signature]:
    """Return the methods that a protocol asks for, its bases' included."""
    return {
        name: inspect.signature(member)
        for cls in protocol.__mro__
        if getattr(cls, "_is_protocol", False)
        for name, member in vars(cls).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_is_a_contract_and_says_what_each_method_does(protocol: type) -> None:
    assert getattr(protocol, "_is_protocol", False)
    with pytest.raises(TypeError, match="Protocols cannot be instantiated"):
        protocol()
    for cls in protocol.__mro__:
        if cls.__module__ == storage.__name__:
            assert inspect.getdoc(cls)
            for name, member in vars(cls).items():
                if not name.startswith("_"):
                    assert inspect.getdoc(member), name


@pytest.mark.parametrize(("cls", "protocol"), KEPT)
def test_a_storage_defines_every_method_of_its_contract(cls: type, protocol: type) -> None:
    # a method that is only inherited from a Protocol would do nothing and return None
    for name in methods_of(protocol):
        owner = next(base for base in cls.__mro__ if name in vars(base))
        assert not getattr(owner, "_is_protocol", False), name


@pytest.mark.parametrize(("cls", "protocol"), KEPT)
def test_a_storage_keeps_the_signatures(cls: type, protocol: type) -> None:
    for name, wanted in methods_of(protocol).items():
        given = inspect.signature(getattr(cls, name))
        parameters = list(wanted.parameters)
        assert list(given.parameters)[: len(parameters)] == parameters, name
        for extra in list(given.parameters.values())[len(parameters) :]:
            assert extra.default is not extra.empty, name


def test_capabilities_can_be_asked_for() -> None:
    mapping = MappingStorage()
    assert isinstance(mapping, Loads)
    assert isinstance(mapping, Iterates)
    assert isinstance(mapping, Commits)
    assert isinstance(mapping, Transacts)
    for protocol in (Loads, Iterates, Commits, Transacts, InvalidationSink):
        assert not isinstance(object(), protocol)


def test_a_sink_is_whatever_has_the_names_by_which_zodb_calls_its_db() -> None:
    class Sink:
        def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
            """Take note."""

        def invalidateCache(self) -> None:  # noqa: N802 - ZODB's name
            """Take note."""

    assert isinstance(Sink(), InvalidationSink)
    assert set(methods_of(InvalidationSink)) <= set(ZODB.interfaces.IStorageWrapper.names(all=True))


def test_the_two_phases_have_zodbs_names() -> None:
    names = set(ZODB.interfaces.IStorage.names(all=True))
    assert {name for name in methods_of(Transacts) if name.startswith("tpc_")} <= names
    assert {"store", "new_oid", "close"} <= names


def test_what_load_before_gives_is_zodbs_triple() -> None:
    revision = Revision(b"data", b"12345678", None)
    assert revision._fields == ("data", "tid", "end_tid")
    assert tuple(revision) == revision == (b"data", b"12345678", None)
