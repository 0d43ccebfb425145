"""Placeholders for objects whose class cannot be imported: they keep what they hold, and are written back unharmed.

A database outlives code. An object whose class is gone can still be loaded, looked at, passed on and stored again
inside of others; only its own attributes cannot be changed, because nobody knows any more what they mean. When the
class is back, the object is itself again.
"""

import copyreg
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # where Python 2's standard library went
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, Self

from persistent import Persistent
from zodbpickle.pickle_3 import PicklingError, _Pickler

from zeo_client.class_aliases import aliased
from zeo_client.zodb_names import OWN
from zeo_core.zodb_interfaces import ZODBInterfaces

__all__ = ["Broken", "BrokenPickler", "PersistentBroken", "find_class", "persistent_broken", "rebuild"]


class Broken:
    """Base of the placeholder classes; each has the module and the name of the class that it stands for.

    `broken_state` is what `__setstate__` of the lost class would have been given, `broken_args` the arguments of its
    `__new__`, `broken_init_args` those of a plain call, None if it was not called, `broken_items` and `broken_pairs`
    the contents if it was a list or a dictionary. `broken_made` is how it was made if in another way: a function of
    copyreg and its arguments, among which are the contents in pickles of protocol 0 and 1.
    """

    broken_args: tuple[Any, ...] = ()
    broken_init_args: tuple[Any, ...] | None = None
    broken_made: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
    broken_state: Any = None
    broken_items: Sequence[Any] = ()
    broken_pairs: Sequence[tuple[Any, Any]] = ()

    __providedBy__ = ZODBInterfaces()

    def __new__(cls, *args: Any) -> Self:
        """Make an instance that keeps its arguments."""
        self = object.__new__(cls)
        self._keep("broken_args", args)
        return self

    def __init__(self, *args: Any) -> None:
        self._keep("broken_init_args", args)

    # These three are the names of ZODB's IBroken, by which tools look into broken objects.

    @property
    def __Broken_newargs__(self) -> tuple[Any, ...]:  # noqa: N802
        """The arguments of `__new__`."""
        return self.broken_args

    @property
    def __Broken_initargs__(self) -> tuple[Any, ...] | None:  # noqa: N802
        """The arguments of a plain call, None if the class was not called."""
        return self.broken_init_args

    @property
    def __Broken_state__(self) -> Any:  # noqa: N802
        """What `__setstate__` would have been given."""
        return self.broken_state

    def _keep(self, name: str, value: object) -> None:
        vars(self)[name] = value

    def __setstate__(self, state: Any) -> None:
        self._keep("broken_state", state)

    def append(self, item: Any) -> None:
        """Take an item while a pickle is read."""
        vars(self).setdefault("broken_items", []).append(item)

    def extend(self, items: Any) -> None:
        """Take items while a pickle is read."""
        vars(self).setdefault("broken_items", []).extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        vars(self).setdefault("broken_pairs", []).append((key, value))

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        made: tuple[Any, Any]
        if self.broken_made is not None:
            made = self.broken_made
        elif self.broken_init_args is not None:
            made = type(self), self.broken_init_args
        else:
            made = copyreg.__newobj__, (type(self), *self.broken_args)  # type: ignore[attr-defined]
        items = iter(self.broken_items) if self.broken_items else None
        pairs = iter(self.broken_pairs) if self.broken_pairs else None
        return *made, self.broken_state, items, pairs

    def __setattr__(self, name: str, _value: object) -> None:
        self._refuse(name)

    def __delattr__(self, name: str) -> None:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise TypeError(
            f"cannot change {name!r} of {self!r}: its class cannot be imported;"
            " make that possible, or give the DB a classFactory"
        )

    def __repr__(self) -> str:
        return f"<broken {type(self).__module__}.{type(self).__qualname__} instance>"


class PersistentBroken(Broken, Persistent):
    """Base of the placeholders for persistent objects."""

    # Persistent keeps slots of this prefix when it makes a ghost; the arguments are needed to write the object again.
    __slots__ = ("_p_broken_args",)

    def __new__(cls, *args: Any) -> Self:
        """Make an instance that keeps its arguments, also while it is a ghost."""
        self: Self = Persistent.__new__(cls)
        self._p_broken_args = args
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        args: tuple[Any, ...] = self._p_broken_args
        return args

    @property
    def __Broken_newargs__(self) -> tuple[Any, ...]:  # noqa: N802
        """The arguments of `__new__`."""
        return self.__getnewargs__()

    def __getstate__(self) -> Any:
        return self.broken_state

    def __repr__(self) -> str:
        return f"<persistent broken {type(self).__module__}.{type(self).__qualname__} instance {self._p_oid!r}>"

    def __setstate__(self, state: Any) -> None:
        self.__dict__["broken_state"] = state

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_p_"):
            self._refuse(name)
        Persistent.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if not name.startswith("_p_"):
            self._refuse(name)
        Persistent.__delattr__(self, name)


# Both by (module, name). An object is to have the same class each time it is loaded.
_broken_classes: dict[tuple[str, str], type[Broken]] = {}
_persistent_classes: dict[type[Broken], type[PersistentBroken]] = {}


def find_class(module: str, name: str) -> Any:
    """Return what `module` has under `name`, or a placeholder class if it cannot be imported.

    Nothing is remembered of a failure but the placeholder: a class that appears later is found later.
    """
    if module[:4] in ("ZODB", "copy") and (module, name) in _SPECIAL:
        return _SPECIAL[module, name]
    try:
        return getattr(sys.modules[module], name)
    except (KeyError, AttributeError):
        pass
    moved = aliased(module, name)
    if moved is not None:
        return moved
    module, name = NAME_MAPPING.get((module, name), (module, name))
    module = IMPORT_MAPPING.get(module, module)
    try:
        __import__(module)
        return getattr(sys.modules[module], name)
    except (ImportError, AttributeError, KeyError):
        pass
    key = module, name
    if key not in _broken_classes:
        _broken_classes[key] = type(name, (Broken,), {"__module__": module})
    return _broken_classes[key]


def persistent_broken(cls: type[Broken]) -> type[PersistentBroken]:
    """Return the placeholder class for persistent objects of the same lost class."""
    if issubclass(cls, PersistentBroken):
        return cls
    if cls not in _persistent_classes:
        _persistent_classes[cls] = type(cls.__name__, (PersistentBroken, cls), {"__module__": cls.__module__})
    return _persistent_classes[cls]


def rebuild(module: str, name: str, *args: Any) -> Any:
    """Return an instance of a class that was gone when ZODB wrote the instance: ZODB.broken.rebuild in its records."""
    cls = find_class(module, name)
    return cls.__new__(cls, *args)


def _maker(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands for a function of copyreg that makes an instance: it may be asked for one of a lost class."""

    def make(cls: Any, *args: Any) -> Any:
        if not (isinstance(cls, type) and issubclass(cls, Broken)):
            return function(cls, *args)
        placeholder = cls.__new__(cls)
        vars(placeholder)["broken_made"] = (function, (cls, *args))
        return placeholder

    return make


_MAKERS: Final = {
    "_reconstructor": _maker(copyreg._reconstructor),  # type: ignore[attr-defined] # noqa: SLF001 - names in pickles
    "__newobj_ex__": _maker(copyreg.__newobj_ex__),  # type: ignore[attr-defined]
}

_SPECIAL: Final[dict[tuple[str, str], Any]] = {
    **OWN,
    ("ZODB.broken", "rebuild"): rebuild,
    **{("copyreg", name): maker for name, maker in _MAKERS.items()},
    **{("copy_reg", name): maker for name, maker in _MAKERS.items()},  # Python 2's name, and protocol 2's
}
"""What is not to be imported under its name."""


class BrokenPickler(_Pickler):
    """Writes placeholders as what they stand for, which the fast pickler refuses: it wants to find each class.

    Several times slower, so only for the records that need it.
    """

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write the name of a class or function."""
        if not (isinstance(obj, type) and issubclass(obj, Broken)):
            super().save_global(obj, name)
            return
        if "\n" in obj.__module__ + obj.__name__:
            raise PicklingError(f"cannot name {obj!r} in a pickle")
        self.write(b"c" + f"{obj.__module__}\n{obj.__name__}\n".encode())
        self.memoize(obj)
