"""Objects to records and back, byte for byte as ZODB does it; zeo_core.record describes what a record looks like.

Writing gives every persistent object that is met for the first time an oid and puts it in line to be written too: new
objects are found because they can be reached. Reading makes ghosts for the persistent objects that a state refers to.
"""

import contextlib
import logging
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, Protocol

from persistent import Persistent
from persistent.wref import WeakRef, WeakRefMarker
from transaction.interfaces import TransientError
from zodbpickle import pickle

from zeo_client.broken import Broken, BrokenPickler, find_class, persistent_broken
from zeo_client.crossing import crossed_into
from zeo_client.state_formats import STATE_FORMATS, format_of_record
from zeo_client.unpicklable import culprit
from zeo_client.zodb_names import OWN, written_by_zodb
from zeo_core.errors import (
    ConflictError,
    InvalidObjectReference,
    RecordFormatError,
    StateLoadError,
    UnpicklableError,
    ZeodError,
)
from zeo_core.ids import Oid, oid_repr
from zeo_core.record import pickle_source

__all__ = ["PROTOCOL", "FindClass", "Jar", "ObjectReader", "ObjectWriter", "dotted_name", "is_reference", "report_load"]

logger = logging.getLogger(__name__)

PROTOCOL: Final = 3
"""The pickle protocol of all records."""

FindClass = Callable[[str, str], Any]
"""Returns the class, or the placeholder, for a module and a name."""

# Asked for each part of a state; most parts are of these types, and a set answers in half of isinstance's time.
_PLAIN: Final = frozenset({str, int, dict, list, tuple, float, bool, bytes, type(None), set, frozenset})
_LARGE_BYTES: Final = 4096
_FORMAT_MARK: Final = b"{"  # how records begin that are no pickles, see zeo_core.record
_MAY_BE_PERSISTENT: Final = (Persistent, type, WeakRef)


class Jar(Protocol):
    """What reading and writing need of a Connection."""

    def adopt(self, obj: Any) -> Oid:
        """Give a new object an oid, and this connection as its own."""

    def get(self, oid: Oid) -> Any:
        """Return the object with this oid, loading its class from its record."""

    def get_connection(self, database_name: str) -> Any:
        """Return the connection to another database; KeyError if there is none."""

    def ghost_of(self, oid: Oid, cls: Any) -> Any:
        """Return the object with this oid, a ghost of `cls` if it is not in memory: without loading anything."""

    def db(self) -> Any:
        """Return the database."""


def dotted_name(obj: object) -> str:
    """Return the module and name of an object's class."""
    cls = type(obj)
    return f"{cls.__module__}.{cls.__qualname__}"


class _Chunks(list[bytes]):
    """A file for a pickler: keeps what is written, which with the fast pickler is one piece for each pickle."""

    __slots__ = ()
    write = list.append


class ObjectWriter:
    """Serializes the objects of one connection.

    `new` collects the objects that got an oid on the way, because they were met for the first time; whoever calls
    `serialize` takes them from the end and serializes them too, until none is left.
    """

    def __init__(self, jar: Jar) -> None:
        self.new: list[Any] = []
        self._jar = jar
        self._chunks = _Chunks()
        self._current: Any = None  # the object that is being serialized, for errors
        self._pickler = self._new_pickler()

    def forget(self) -> None:
        """Let go of all objects, at the end of a commit."""
        self.new.clear()
        self._current = None

    def _new_pickler(self) -> Any:
        pickler = pickle.Pickler(self._chunks, PROTOCOL)
        pickler.persistent_id = self._persistent_id
        return pickler

    def serialize(self, obj: Any) -> bytes:
        """Return the object's record.

        UnpicklableError, naming the attribute, if something in its state has no pickle; InvalidObjectReference if it
        refers to an object of another connection.
        """
        try:
            state = obj.__getstate__()
            other_format = STATE_FORMATS.get(type(state))
            metadata = _class_metadata(obj) if other_format is None else None
        except Exception as error:
            # It is the class's own error, and stays that; a traceback alone does not tell which object it was.
            error.add_note(f"while {dotted_name(obj)} with oid {oid_repr(obj._p_oid)} was to be stored")
            raise
        self._current = obj
        if other_format is not None:
            return other_format.record(obj, state, self._persistent_id)
        try:
            data = self._dump(self._pickler, metadata, state)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            return self._dump_with_care(metadata, state, error)
        except RecursionError as error:
            raise self._too_deep(error) from error
        if len(data) > _LARGE_BYTES:
            # A memo keeps the size that it once needed, and to clear it takes as long as the largest object did.
            self._pickler = self._new_pickler()
        return data

    def _dump(self, pickler: Any, metadata: object, state: object) -> bytes:
        chunks = self._chunks
        try:
            # Both pickles share a memo: the state names classes that the metadata have named already by number.
            pickler.dump(metadata)
            pickler.dump(state)
            return written_by_zodb(b"".join(chunks))
        finally:
            chunks.clear()
            pickler.clear_memo()  # afterwards, because it would keep the state alive until the next object

    def _dump_with_care(self, metadata: object, state: object, error: Exception) -> bytes:
        """Try again with the pickler that knows placeholders; if that fails too, find out what is at fault."""
        pickler = BrokenPickler(self._chunks, PROTOCOL)
        pickler.persistent_id = self._persistent_id
        try:
            return self._dump(pickler, metadata, state)
        except ZeodError:
            raise
        except Exception:  # noqa: BLE001 - of the two, the fast pickler's error is the one that users know
            raise self._unpicklable(error) from error

    def _unpicklable(self, error: Exception) -> UnpicklableError:
        obj, path, reason = self._current, "", ""
        # To look for the culprit runs the classes' own code again, and must not hide the error that there is.
        with contextlib.suppress(Exception):
            path, reason = culprit(obj, is_reference, _can_be_pickled)
        what = f"{type(error).__name__}: {error}"
        return UnpicklableError(dotted_name(obj), obj._p_oid, path, f"{reason} ({what})" if reason else what)

    def _too_deep(self, error: RecursionError) -> UnpicklableError:
        reason = f"its state is nested too deeply; make its parts persistent objects of their own ({error})"
        return UnpicklableError(dotted_name(self._current), self._current._p_oid, "", reason)

    def _persistent_id(self, obj: Any) -> object:
        """Return the reference to write in the place of `obj`, None for what is written itself."""
        cls: Any = type(obj)
        if cls in _PLAIN or not isinstance(obj, _MAY_BE_PERSISTENT):
            return None
        return self._reference(obj, cls)

    def _reference(self, obj: Any, cls: type) -> object:
        try:
            oid = obj._p_oid
        except AttributeError:
            return None
        if oid is None:
            oid = self._jar.adopt(obj)
            self.new.append(obj)
        elif not isinstance(oid, bytes):
            if oid is WeakRefMarker:
                return self._weak_reference(obj)
            if hasattr(oid, "__get__"):  # a class whose instances are persistent, not a persistent class
                return None
        elif obj._p_jar is not self._jar:
            name = crossed_into(self._jar, self._current, obj)
            return ["n", (name, oid)] if hasattr(cls, "__getnewargs__") else ["m", (name, oid, cls)]
        # The arguments of __new__ stand in the object's own record, so a reference cannot make the ghost alone.
        return oid if hasattr(cls, "__getnewargs__") else (oid, cls)

    def _weak_reference(self, reference: Any) -> list[Any]:
        oid = reference.oid
        if oid is None:
            # Made when its target was new. The target is stored too: presumably someone will refer to it strongly.
            target = reference()
            oid = target._p_oid
            if oid is None:
                oid = self._jar.adopt(target)
                self.new.append(target)
            reference.oid = oid
            reference.dm = target._p_jar
            reference.database_name = reference.dm.db().database_name
        if getattr(reference, "dm", None) is self._jar:  # without dm it came from a database that is not open here
            return ["w", (oid,)]
        return ["w", (oid, reference.database_name)]


def _class_metadata(obj: Any) -> object:
    """Return what stands in the record for the class."""
    cls = type(obj)  # not __class__, which a proxy may fake
    new_args = getattr(obj, "__getnewargs__", None)
    oid = getattr(cls, "_p_oid", 0)
    if (oid is None or isinstance(oid, bytes)) and cls.__module__:
        # A class that is persistent itself goes by name, so that copies of the object find the class where they are.
        return (cls.__module__, cls.__name__), None if new_args is None else new_args()
    return cls if new_args is None else (cls, new_args())


def is_reference(obj: Any) -> bool:
    """Tell whether a reference is written in the place of `obj`."""
    oid = getattr(obj, "_p_oid", 0) if isinstance(obj, _MAY_BE_PERSISTENT) else 0
    return oid is None or oid is WeakRefMarker or isinstance(oid, bytes)


class _Trial(BrokenPickler):
    """Finds out whether something can be pickled, with placeholders; to persistent objects it only points."""

    def persistent_id(self, obj: Any) -> str | None:
        """Return some reference for an object that would be written as a reference."""
        return "reference" if is_reference(obj) else None


def _can_be_pickled(value: object) -> bool:
    try:
        _Trial(BytesIO(), PROTOCOL).dump(value)
    except Exception:  # noqa: BLE001 - whatever a class's own code raises
        return False
    return True


class _RecordUnpickler(pickle.Unpickler):
    """Finds classes through a function given to the instance."""

    __slots__ = ("find_class",)


class ObjectReader:
    """Reads records into the objects of one connection; `cache` is the connection's PickleCache."""

    def __init__(self, jar: Jar, cache: Any, finder: FindClass) -> None:
        self._jar = jar
        self._cache = cache
        self._find_class = finder if finder is find_class else _own_first(finder)
        self._loading: dict[Oid, Any] = {}
        self._load_reference = self._reference_loader()

    def ghost(self, oid: Oid, data: bytes) -> Any:
        """Return a new object of the record's class, without its state; StateLoadError if it cannot be made."""
        try:
            cls, args = self._class_and_arguments(data)
            if isinstance(cls, tuple):
                cls = self._find_class(*cls)
            if issubclass(cls, Broken):
                cls = persistent_broken(cls)
            return cls.__new__(cls, *(args or ()))
        except Exception as error:
            if _says_it_itself(error):
                raise
            raise StateLoadError("an object", oid, _reason(error)) from error

    def _class_and_arguments(self, data: bytes) -> tuple[Any, Any]:
        if data[:1] == _FORMAT_MARK:
            return format_of_record(data).class_names(data), None
        metadata = self._unpickler(data).load()
        return metadata if isinstance(metadata, tuple) else (metadata, None)

    def cached_ghost(self, oid: Oid, data: bytes) -> Any:
        """Return the ghost of a record, in the cache; of a class that is persistent itself, with its state."""
        obj = self._loading[oid] = self.ghost(oid, data)
        try:
            # A class has no ghosts: here it loads its state, and is not in the cache before it has it. In its state
            # there may be references to itself.
            self._cache.new_ghost(oid, obj)
        finally:
            del self._loading[oid]
        return obj

    def set_state(self, obj: Any, data: bytes) -> None:
        """Fill a ghost; StateLoadError if the record, or the class's own code, does not allow it."""
        try:
            obj.__setstate__(self._state(data))
        except Exception as error:
            if _says_it_itself(error):
                raise
            # Also because an AttributeError from here would look like an attribute that the object has not got.
            raise StateLoadError(dotted_name(obj), obj._p_oid, _reason(error)) from error

    def state(self, obj: Any, data: bytes) -> Any:
        """Return the state in a record of `obj`, without touching `obj`; StateLoadError if it cannot be made."""
        try:
            return self._state(data)
        except Exception as error:
            if _says_it_itself(error):
                raise
            raise StateLoadError(dotted_name(obj), obj._p_oid, _reason(error)) from error

    def _state(self, data: bytes) -> Any:
        if data[:1] == _FORMAT_MARK:
            return format_of_record(data).state(data, self._load_reference)
        unpickler = self._unpickler(data)
        unpickler.load()  # the class's metadata: needed for the memo that the state goes on with
        return unpickler.load()

    def _unpickler(self, data: bytes) -> Any:
        unpickler = _RecordUnpickler(pickle_source(data))
        unpickler.find_class = self._find_class
        unpickler.persistent_load = self._load_reference
        return unpickler

    def _reference_loader(self) -> Callable[[Any], Any]:
        """Return the function that the unpickler calls for each reference: a closure, because it is called so often."""
        known, load_strong, load_other = self._cache.get, self.strong, self._other

        def load_reference(reference: Any) -> Any:
            if type(reference) is tuple:
                oid, cls = reference
                obj = known(oid)
                return load_strong(oid, cls) if obj is None else obj
            return load_other(reference)

        return load_reference

    def strong(self, oid: Any, cls: Any) -> Any:
        """Return the object for a reference that names its class, a ghost if it is not in the cache."""
        if not isinstance(oid, bytes):
            oid = _oid(oid)
            if (obj := self._cache.get(oid)) is not None:
                return obj
        if isinstance(cls, tuple):
            cls = self._find_class(*cls)
        if issubclass(cls, Broken):
            cls = persistent_broken(cls)
        try:
            obj = cls.__new__(cls)
        except TypeError:
            # The class has come to want arguments since the reference was written; its own record may have them.
            return self._jar.get(oid)
        self._cache.new_ghost(oid, obj)
        return obj

    def _other(self, reference: Any) -> Any:
        """Return the object for all other kinds of reference."""
        if isinstance(reference, bytes | str):
            oid = _oid(reference)
            return self._loading[oid] if oid in self._loading else self._jar.get(oid)
        if len(reference) == 1:
            return self._weak(*reference)
        kind, args = reference
        if kind == "w":
            return self._weak(*args)
        if kind in ("n", "m"):
            return self._crossing(*args)
        raise ValueError(f"persistent reference of an unknown kind: {reference!r:.100}")

    def _crossing(self, database_name: str, oid: Any, cls: Any = None) -> Any:
        """Return the object for a reference into another database, as that one's connection has it."""
        try:
            connection = self._jar.get_connection(database_name)
        except KeyError:
            raise InvalidObjectReference(
                f"object {oid_repr(_oid(oid))} of the database {database_name!r} is referred to, and the database"
                f" {database_name!r} is not open beside {self._jar.db().database_name!r}: give both DBs one `databases`"
            ) from None
        return connection.get(_oid(oid)) if cls is None else connection.ghost_of(_oid(oid), cls)

    def _weak(self, oid: Any, database_name: str | None = None) -> Any:
        reference = WeakRef.__new__(WeakRef)
        reference.oid = _oid(oid)
        if database_name is None:
            reference.dm = self._jar
            return reference
        reference.database_name = database_name
        # A weak reference into a database that is not open looks like one whose target is gone.
        with contextlib.suppress(KeyError):
            reference.dm = self._jar.get_connection(database_name)
        return reference


def _says_it_itself(error: Exception) -> bool:
    """Tell whether an error names what it is about; one about a record's format does not know whose record it is."""
    return isinstance(error, ZeodError | TransientError) and not isinstance(error, RecordFormatError)


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, UnicodeDecodeError):
        text += "; a string of Python 2, which may be text or bytes: zodbupdate converts databases of Python 2"
    return text


def report_load(obj: Any, oid: Oid, error: Exception) -> None:
    """Name the class in a conflict that came instead of the object's state, and log what is no conflict."""
    if isinstance(error, ConflictError):
        if error.class_name is None:
            error.name_class(dotted_name(obj))
    elif not isinstance(error, TransientError):
        # Who reads an attribute seldom expects this, and may catch it too broadly.
        logger.error("cannot load the state of %s with oid %s", dotted_name(obj), oid_repr(oid), exc_info=True)


def _own_first(finder: FindClass) -> FindClass:
    """Return `finder` for all but the classes that stand for ZODB's; `find_class` knows them itself."""

    def find(module: str, name: str) -> Any:
        own = OWN.get((module, name))
        return finder(module, name) if own is None else own

    return find


def _oid(oid: Any) -> Oid:
    """Return an oid that Python 2 wrote as a string as the bytes that it is."""
    return oid if isinstance(oid, bytes) else oid.encode("ascii")
