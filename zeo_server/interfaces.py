"""Which of ZODB's interfaces a served storage offers: ZEO's clients switch their features on by them."""

from zeo_core.storage import HasBlobs, ServedStorage, Undoes

__all__ = ["interfaces_of"]

_ROOT = ("zope.interface", "Interface")
"""The last of all bases, which ZEO's server tells as well."""


def interfaces_of(storage: ServedStorage) -> tuple[tuple[str, str], ...]:
    """Return the pairs of module and name that get_info tells, in the order in which ZEO's server tells them.

    Every served storage can be walked and written to under given tids, which is what the contract demands of it, and a
    deletion is a write like any other.
    """
    names = ["IStorageRestoreable", "IStorageIteration"]
    if isinstance(storage, Undoes):
        names.append("IStorageUndoable")
    if hasattr(storage, "record_iternext"):
        names.append("IStorageCurrentRecordIteration")
    names.append("IExternalGC")
    if isinstance(storage, HasBlobs):
        names.append("IBlobStorage")
    names.append("IStorage")
    return (*(("ZODB.interfaces", name) for name in names), _ROOT)
