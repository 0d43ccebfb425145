"""Which of ZODB's interfaces a served storage offers: ZEO's clients switch their features on by them."""

from zeo_core.storage import HasBlobs, ServedStorage, Undoes

__all__ = ["interfaces_of"]

_MODULE = "ZODB.interfaces"
_EVERY = ("IStorage", "IStorageIteration", "IStorageRestoreable", "IMultiCommitStorage", "IExternalGC")


def interfaces_of(storage: ServedStorage) -> tuple[tuple[str, str], ...]:
    """Return the pairs of module and name that get_info tells.

    Every served storage can be walked and written to under given tids, which is what the contract demands of it, and a
    deletion is a write like any other.
    """
    names = [*_EVERY]
    if isinstance(storage, Undoes):
        names.append("IStorageUndoable")
    if isinstance(storage, HasBlobs):
        names.append("IBlobStorage")
    if hasattr(storage, "record_iternext"):
        names.append("IStorageCurrentRecordIteration")
    return tuple((_MODULE, name) for name in names)
