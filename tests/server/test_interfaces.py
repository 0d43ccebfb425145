"""What ZEO's clients are told that a storage offers."""

import ZEO.ClientStorage
import ZODB.interfaces

from zeo_server.interfaces import interfaces_of
from zeo_server.storages.mapping import MappingStorage


def test_they_are_zodbs_and_zeos_client_has_what_they_demand() -> None:
    told = interfaces_of(MappingStorage())
    assert ("ZODB.interfaces", "IStorageIteration") in told
    assert ("ZODB.interfaces", "IStorageCurrentRecordIteration") in told
    for module, name in told:
        assert module == "ZODB.interfaces"
        for method in getattr(ZODB.interfaces, name).names(all=True):
            assert hasattr(ZEO.ClientStorage.ClientStorage, method), (name, method)
