"""Declarations of ZODB's interfaces: made when asked for, and of what a storage has."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import zope.interface
import zope.interface.verify
from ZODB import interfaces

from zeo_core.storage import Commits, Iterates, Packs, Transacts, TransactsBlobs, Undoes
from zeo_core.zodb_interfaces import ZODBInterfaces
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


def test_a_storage_provides_what_it_has_the_names_of(tmp_path: Path) -> None:
    with closing(FileStorage(tmp_path / "Data.fs")) as storage:
        provided = list(zope.interface.providedBy(storage))
        assert interfaces.IStorageIteration in provided
        for interface in provided:
            zope.interface.verify.verifyObject(interface, storage)
    for made in (MappingStorage(), DemoStorage()):
        for interface in (interfaces.IStorage, interfaces.IStorageUndoable, interfaces.IExternalGC):
            assert interface.providedBy(made)
            zope.interface.verify.verifyObject(interface, made)
    assert not interfaces.IBlobStorage.providedBy(MappingStorage())
    assert not interfaces.IMVCCStorage.providedBy(MappingStorage())


def test_declarations_leave_the_contract_as_it_is(tmp_path: Path) -> None:
    with closing(FileStorage(tmp_path / "Data.fs", blob_dir=tmp_path / "blobs")) as storage:
        for protocol in (Transacts, TransactsBlobs, Undoes, Packs, Iterates, Commits):
            assert isinstance(storage, protocol)
        zope.interface.alsoProvides(storage, zope.interface.Interface)
        assert interfaces.IBlobStorage.providedBy(storage)
    with closing(FileStorage(tmp_path / "other.fs", blob_dir=tmp_path / "others")) as storage:
        for protocol in (Transacts, TransactsBlobs, Undoes, Packs, Iterates, Commits):
            assert isinstance(storage, protocol)
        assert not isinstance(object(), Packs)


def test_names_may_be_the_instances() -> None:
    class Named:
        __providedBy__ = ZODBInterfaces()

        def __init__(self) -> None:
            for name in interfaces.IBroken.names(all=True):
                setattr(self, name, None)

    assert interfaces.IBroken.providedBy(Named())


def test_declarations_on_an_instance_are_kept() -> None:
    class IMine(zope.interface.Interface):
        """Of this test."""

    storage = MappingStorage()
    zope.interface.alsoProvides(storage, IMine)
    assert IMine.providedBy(storage)
    assert interfaces.IStorageIteration.providedBy(storage)


def test_a_class_without_the_names_provides_nothing() -> None:
    class Nothing:
        __providedBy__ = ZODBInterfaces()

    assert list(zope.interface.providedBy(Nothing())) == []


def test_nothing_is_imported_and_before_zodb_nothing_declared() -> None:
    code = (
        "import sys, zope.interface; from zeo_server.storages.mapping import MappingStorage;"
        "storage = MappingStorage(); assert not list(zope.interface.providedBy(storage));"
        "assert 'ZODB' not in sys.modules;"
        "import ZODB.interfaces; assert ZODB.interfaces.IStorageIteration.providedBy(storage)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
