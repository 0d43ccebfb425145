"""What ZEO's clients are told that a storage offers."""

from contextlib import closing
from pathlib import Path

import ZEO.ClientStorage
import ZODB.FileStorage
import ZODB.interfaces
import zope.interface

from zeo_server.interfaces import interfaces_of
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


def test_they_are_zodbs_and_zeos_client_has_what_they_demand() -> None:
    told = interfaces_of(MappingStorage())
    assert ("ZODB.interfaces", "IStorageIteration") in told
    assert ("ZODB.interfaces", "IStorageCurrentRecordIteration") in told
    assert told[-1] == ("zope.interface", "Interface")
    for module, name in told[:-1]:
        assert module == "ZODB.interfaces"
        for method in getattr(ZODB.interfaces, name).names(all=True):
            assert hasattr(ZEO.ClientStorage.ClientStorage, method), (name, method)


def test_a_file_storage_is_told_as_zeos_server_tells_it(tmp_path: Path) -> None:
    ours, theirs = FileStorage(tmp_path / "ours.fs"), ZODB.FileStorage.FileStorage(str(tmp_path / "theirs.fs"))
    with closing(ours), closing(theirs):
        wanted = [(each.__module__, each.__name__) for each in zope.interface.providedBy(theirs).__iro__]
        assert list(interfaces_of(ours)) == wanted
