"""Conflict resolution: three records of one object in, one that has the changes of both sides out.

An object's class may have a method `_p_resolveConflict(old, committed, new)`. It gets three states, as `__getstate__`
makes them, and returns the state that has both changes, or raises a ConflictError. `old` is what both sides began with,
`committed` what the other one has stored, `new` what this one wants to store; for an undo these are the state to be
undone, the current one, and the one to go back to.

It is the class's own code that runs, on bytes that may come from others. So nothing is imported here: the caller gives
a loader, or resolves nothing.

In the states, persistent objects are represented by `PersistentReference`. Whether two of them are the same object can
be told, but not which of two is the greater, nor whether a weak one is the same: to compare them so raises, which makes
the conflict one that cannot be resolved. A guess would store a wrong answer (lesson B23).

A state that is a Protocol Buffers message is merged field by field, see zeo_core.protobuf_merge, unless its class has
the method. A state is then the pair (message in bytes, {refid: PersistentReference}).
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any, NoReturn

from transaction.interfaces import TransientError
from zodbpickle import pickle

from zeo_core.protobuf_merge import MergeConflict
from zeo_core.protobuf_record import PROTOBUF, ObjectRecord, Reference, decode, encode
from zeo_core.protobuf_resolve import RuleOf, merge_records, merge_rule
from zeo_core.record import PICKLE, format_name, pickle_source, untransformed

__all__ = ["ClassLoader", "PersistentReference", "UnresolvedError", "resolve"]

ClassLoader = Callable[[str, str], Any]
"""Returns the class of a module's name and a class's name; ImportError or AttributeError if there is none."""

_PROTOCOL = 3
_METHOD = "_p_resolveConflict"


class UnresolvedError(Exception):
    """The conflict remains. `expected` tells a class that does not resolve it from one whose method is at fault."""

    def __init__(self, reason: str, *, expected: bool = True) -> None:
        super().__init__(reason)
        self.expected = expected


class PersistentReference:
    """A persistent object in a state: its oid, its database if that is another one, whether the reference is weak.

    `klass` is the class as the reference names it, or None. Instances are made for one resolution only, one for each
    way in which a reference is written.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.oid: Any = None
        self.database_name: str | None = None
        self.klass: Any = None
        self.weak = False
        if isinstance(data, tuple):
            self.oid, self.klass = data
        elif isinstance(data, list):
            self._take_list(data)
        else:
            self.oid = data
        if isinstance(self.oid, str):
            self.oid = self.oid.encode("ascii")  # Python 2's string, all of whose bytes happened to be ASCII

    def _take_list(self, data: list[Any]) -> None:
        if len(data) == 1:
            self.oid, self.weak = data[0], True
            return
        kind, parts = data
        if kind == "w":
            self.oid, self.weak = parts[0], True
            self.database_name = parts[1] if len(parts) > 1 else None
        elif kind in ("n", "m"):
            self.database_name, self.oid, self.klass = (*parts, None)[:3]
        else:
            raise UnresolvedError(f"a persistent reference of the unknown kind {kind!r:.20}")

    def _same(self, other: object) -> bool:
        if self is other:
            return True
        if (
            isinstance(other, PersistentReference)
            and not (self.weak or other.weak)
            and (self.oid, self.database_name) == (other.oid, other.database_name)
        ):
            return True
        raise ValueError("different persistent references cannot be compared reliably")

    def __eq__(self, other: object) -> bool:
        return self._same(other)

    def __ne__(self, other: object) -> bool:
        return not self._same(other)

    def __lt__(self, other: object) -> bool:
        return not self._same(other)

    __gt__ = __lt__

    def __le__(self, other: object) -> bool:
        return self._same(other)

    __ge__ = __le__
    __hash__ = None  # type: ignore[assignment] # nor can it be a key

    def __repr__(self) -> str:
        return f"<reference to {self.data!r}>"

    def __getstate__(self) -> NoReturn:
        raise pickle.PicklingError("a persistent reference was copied, or is used where no object can be")


class _Absent:
    """Stands for a class that the loader does not have; its name is all that is known."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *_args: object) -> NoReturn:
        raise UnresolvedError(f"there is no class {self.module}.{self.name} here")

    def __reduce__(self) -> NoReturn:
        self()


class _Unpickler(pickle.Unpickler):
    """Reads a record with the classes that the reader finds."""

    __slots__ = ("_find_class",)

    def __init__(self, record: bytes, find_class: ClassLoader) -> None:
        super().__init__(pickle_source(record), errors="bytes")
        self._find_class = find_class

    def find_class(self, module: str, name: str) -> Any:
        """Return the class, or what stands for it."""
        return self._find_class(module, name)


class _Reader:
    """Reads the three records; references that are written alike become one PersistentReference."""

    def __init__(self, load_class: ClassLoader) -> None:
        self._load_class = load_class
        self._references: dict[Any, PersistentReference] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the class, or what stands for it."""
        try:
            return self._load_class(module, name)
        except (ImportError, AttributeError):
            return _Absent(module, name)

    def _reference(self, data: Any) -> PersistentReference:
        if isinstance(data, tuple) and isinstance(data[1], _Absent):
            data = (data[0], (data[1].module, data[1].name))  # the other form in which a reference may name its class
        elif isinstance(data, list) and data[0] == "m" and isinstance(data[1][2], _Absent):
            database, oid, absent = data[1]
            data = ["m", (database, oid, (absent.module, absent.name))]
        key = repr(data)
        known = self._references.get(key)
        if known is None:
            known = self._references[key] = PersistentReference(data)
        return known

    def unpickler(self, record: bytes) -> Any:
        """Return what reads the record's class metadata and then its state."""
        unpickler = _Unpickler(record, self.find_class)
        unpickler.persistent_load = self._reference
        return unpickler

    def state(self, record: bytes) -> Any:
        """Return the record's state."""
        unpickler = self.unpickler(record)
        unpickler.load()
        return unpickler.load()


def resolve(old: bytes, committed: bytes, new: bytes, load_class: ClassLoader, rule_of: RuleOf | None = None) -> bytes:
    """Return the record with the changes from `old` to `committed` and those from `old` to `new`.

    `rule_of` tells how messages of a class are merged without the class. UnresolvedError if there is no such record:
    the class cannot do it, or is not there, or its method fails in any way at all.
    """
    try:
        return _resolve(old, committed, new, load_class, rule_of)
    except (UnresolvedError, TransientError) as error:
        raise UnresolvedError(str(error)) from error
    except Exception as error:
        raise UnresolvedError(f"{type(error).__name__}: {error}", expected=False) from error


def _resolve(old: bytes, committed: bytes, new: bytes, load_class: ClassLoader, rule_of: RuleOf | None) -> bytes:
    old, committed, new = map(untransformed, (old, committed, new))
    formats = {format_name(record) for record in (old, committed, new)}
    if formats == {PROTOBUF}:
        return _resolve_messages(old, committed, new, load_class, rule_of)
    if formats != {PICKLE}:
        raise UnresolvedError(f"records of the format {' and '.join(map(repr, sorted(formats)))} are not resolved")
    reader = _Reader(load_class)
    unpickler = reader.unpickler(new)
    metadata = unpickler.load()
    method = getattr(_instance(metadata, reader), _METHOD, None)
    if method is None:
        raise UnresolvedError("its class has no _p_resolveConflict")
    resolved = method(reader.state(old), reader.state(committed), unpickler.load())
    return _record(metadata, resolved)


def _instance(metadata: Any, reader: _Reader) -> Any:
    """Return an object of the class, without state, as one is made to be loaded."""
    cls, arguments = metadata if isinstance(metadata, tuple) else (metadata, ())
    if isinstance(cls, tuple):
        cls = reader.find_class(*cls)
    if isinstance(cls, _Absent):
        cls()
    if isinstance(cls, PersistentReference):
        raise UnresolvedError("its class is an object of the database")
    return cls.__new__(cls, *(arguments or ()))


def _record(metadata: Any, state: Any) -> bytes:
    file = BytesIO()
    pickler = pickle.Pickler(file, _PROTOCOL)
    pickler.persistent_id = _persistent_id
    pickler.dump(metadata)
    pickler.dump(state)
    return file.getvalue()


def _persistent_id(obj: Any) -> Any:
    return obj.data if type(obj) is PersistentReference else None


def _resolve_messages(
    old: bytes, committed: bytes, new: bytes, load_class: ClassLoader, rule_of: RuleOf | None
) -> bytes:
    class_meta = decode(new).class_meta
    rule = None if rule_of is None else rule_of(*class_meta)
    if rule is None:
        try:
            cls = load_class(*class_meta)
        except (ImportError, AttributeError):
            raise UnresolvedError(f"there is no class {class_meta.dotted_name} here") from None
        if hasattr(cls, _METHOD):
            return _MessageStates().resolved(cls, old, committed, new)
        rule = merge_rule(cls)
    if rule is None:
        raise UnresolvedError("its class has neither a protobuf_type nor _p_resolveConflict")
    try:
        return merge_records(old, committed, new, rule)
    except MergeConflict as conflict:
        raise UnresolvedError(str(conflict)) from conflict


class _MessageStates:
    """States as a class's own method gets them from records with messages, and a record from what it returns."""

    def __init__(self) -> None:
        self._known: dict[Reference, PersistentReference] = {}

    def resolved(self, cls: Any, old: bytes, committed: bytes, new: bytes) -> bytes:
        """Have the class do it."""
        method = getattr(cls.__new__(cls), _METHOD)
        state, targets = method(*map(self._state, (old, committed, new)))
        written = {id(target): reference for reference, target in self._known.items()}
        references = (written[id(target)]._replace(refid=refid) for refid, target in targets.items())
        return encode(ObjectRecord(decode(new).class_meta, state, tuple(references)))

    def _state(self, data: bytes) -> tuple[bytes, dict[int, PersistentReference]]:
        record = decode(data)
        return record.state, {reference.refid: self._target(reference) for reference in record.references}

    def _target(self, reference: Reference) -> PersistentReference:
        key = reference._replace(refid=0)
        if key not in self._known:
            self._known[key] = PersistentReference(_as_in_a_pickle(key))
        return self._known[key]


def _as_in_a_pickle(reference: Reference) -> Any:
    cls = None if reference.class_meta is None else tuple(reference.class_meta)
    if reference.weak:
        return ["w", (reference.oid,)]
    if reference.database is not None:
        return (
            ["n", (reference.database, reference.oid)]
            if cls is None
            else ["m", (reference.database, reference.oid, cls)]
        )
    return reference.oid if cls is None else (reference.oid, cls)
