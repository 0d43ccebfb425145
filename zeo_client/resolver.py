"""Resolving conflicts on the client, whose classes are at hand: the server tells which there are, and holds its locks.

What is resolved is stored again, from the revision that is committed (lesson B22), and the transaction voted again.
"""

import logging
from collections.abc import Callable
from typing import Any

from zeo_client.class_aliases import aliased
from zeo_client.replies import ToResolve
from zeo_core.classes import import_class
from zeo_core.errors import ConflictError, POSKeyError, RecordFormatError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr
from zeo_core.protobuf_resolve import merge_rule
from zeo_core.record import class_name
from zeo_core.resolve import UnresolvedError, resolve

__all__ = ["Resolver"]

logger = logging.getLogger(__name__)


def _find_class(module: str, name: str) -> Any:
    """Return a class, also one that has moved since; ImportError or AttributeError if there is none."""
    moved = aliased(module, name)
    return import_class(module, name) if moved is None else moved


def _unchanged(data: bytes) -> bytes:
    return data


class Resolver:
    """Resolves conflicts of one storage, which gives older revisions by `load_serial`."""

    def __init__(self, name: str, load_serial: Callable[[Oid, Tid], bytes]) -> None:
        self._name = name
        self._load_serial = load_serial
        self._transform: Callable[[bytes], bytes] = _unchanged
        self._untransform: Callable[[bytes], bytes] = _unchanged
        self._able: dict[str, bool] = {}  # by class name

    def use(self, sink: Any) -> None:
        """Take note of a DB through which records are compressed or encrypted (ZODB's IStorageWrapper)."""
        self._transform = getattr(sink, "transform_record_data", _unchanged)
        self._untransform = getattr(sink, "untransform_record_data", _unchanged)

    def may_resolve(self, data: bytes | None) -> bool:
        """Tell whether a conflict of an object with this record is worth asking about: the server waits meanwhile.

        Those who all want one object whose class resolves nothing would each hold its lock for a round trip, in vain.
        """
        name = self._class_name(data)
        if name is None:
            return False
        if name not in self._able:
            module, _, attribute = name.rpartition(".")
            try:
                cls = _find_class(module, attribute)
                self._able[name] = hasattr(cls, "_p_resolveConflict") or merge_rule(cls) is not None
            except (ImportError, AttributeError, ValueError):
                self._able[name] = True  # a class inside another, say: resolving will tell
        return self._able[name]

    def resolve(self, conflict: ToResolve, new: bytes | None) -> bytes:
        """Return the record that has both changes; ConflictError if there is none."""
        if new is not None and conflict.read != ZERO_TID:  # else there is no state with which both sides began
            try:
                return self._resolved(conflict, new)
            except UnresolvedError as error:
                if not error.expected:
                    logger.warning(
                        "%s: oid %s: conflict not resolved", self._name, oid_repr(conflict.oid), exc_info=True
                    )
            except POSKeyError:
                pass  # the state of before is packed away
        raise ConflictError(
            oid=conflict.oid, serials=(conflict.committed, conflict.read), class_name=self._class_name(new)
        )

    def _resolved(self, conflict: ToResolve, new: bytes) -> bytes:
        old = self._load_serial(conflict.oid, conflict.read)
        committed = conflict.committed_data or self._load_serial(conflict.oid, conflict.committed)
        old, committed, new = map(self._untransform, (old, committed, new))
        return self._transform(resolve(old, committed, new, _find_class))

    def _class_name(self, data: bytes | None) -> str | None:
        try:
            return class_name(self._untransform(data)) if data else None
        except RecordFormatError:
            return None
