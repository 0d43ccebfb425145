"""zope.interface declarations for who asks by ZODB's interfaces, without importing ZODB.

Whoever asks `IStorageUndoable.providedBy(storage)` has imported ZODB.interfaces: only then, at the first question, is
anything declared. A class is declared to implement an interface if it, or the first instance that is asked, has all of
its names.
"""

import sys
from typing import Any

__all__ = ["ZODBInterfaces"]

_INTERFACES = (
    "IBlob",
    "IBlobStorage",
    "IBlobStorageRestoreable",
    "IBroken",
    "IConnection",
    "IExternalGC",
    "IMultiCommitStorage",
    "IStorage",
    "IStorageCurrentRecordIteration",
    "IStorageIteration",
    "IStorageRecordInformation",
    "IStorageRestoreable",
    "IStorageTransactionInformation",
    "IStorageUndoable",
)
"""Those that say what an object is or can do; not IMVCCStorage: that one's instances are a connection's own."""


class ZODBInterfaces:
    """A class attribute `__providedBy__`, which is what zope.interface asks an object for."""

    def __init__(self) -> None:
        self._declared: set[type] = set()

    def __get__(self, instance: object, owner: type) -> Any:
        interfaces, zope = sys.modules.get("ZODB.interfaces"), sys.modules.get("zope.interface")
        if instance is None:
            return self  # zope.interface would put its own descriptor in the place of a missing one
        if interfaces is None or zope is None:
            raise AttributeError("__providedBy__")  # zope.interface then looks for itself, and finds nothing
        if owner not in self._declared:
            found = [getattr(interfaces, name, None) for name in _INTERFACES]
            own = getattr(instance, "__dict__", ())  # not hasattr, which would load the state of a ghost
            for interface in found:
                if interface is not None and all(
                    hasattr(owner, name) or name in own for name in interface.names(all=True)
                ):
                    zope.classImplements(owner, interface)
            self._declared.add(owner)
        return getattr(instance, "__provides__", None) or zope.implementedBy(owner)
