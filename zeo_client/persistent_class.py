"""Classes that are objects of the database: `PersistentMetaClass`, by which ZODB's records know them.

    Invoice = PersistentMetaClass("Invoice", (Persistent,), {})
    conn.root.classes["Invoice"] = Invoice

Such a class is stored like any object: its bases and its attributes are its state, and setting one changes it. It has
no ghosts: its state is loaded with it, and loaded again as soon as others have changed it. Few databases hold any
(ZODB's ZClasses did); the records of their instances name the class by module and name, so that DB's `class_factory`
has to find it, unless the class has an empty `__module__`: then they refer to the class itself.
"""

from typing import Any, Final, NoReturn

__all__ = ["PersistentMetaClass"]

_Bases = tuple[type, ...]

_NOT_STORED: Final = "__global_persistent_class_not_stored_in_DB__"
"""An attribute of classes of this kind that live in a module after all: they are pickled by name."""

_NO_STATE: Final = frozenset({"__dict__", "__weakref__"})


class _Data:
    """One of persistent's attributes, for a class: kept in a dictionary of the class, which its state has not."""

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, cls: Any, _metaclass: type | None = None) -> Any:
        if cls is None:
            return self  # asked of the metaclass, which is no object of a database
        if _NOT_STORED in vars(cls):
            raise AttributeError(self._name)
        return cls._p_class_dict.get(self._name)

    def __set__(self, cls: Any, value: Any) -> None:
        cls._p_class_dict[self._name] = value

    def __delete__(self, cls: Any) -> None:
        cls._p_class_dict[self._name] = None


class _Place(_Data):
    """`_p_oid` or `_p_jar`: once a class that waits for its state has both, the state is loaded."""

    def __set__(self, cls: Any, value: Any) -> None:
        own = cls._p_class_dict
        if own.get(self._name) == value:
            return
        own[self._name] = value
        if own.get("_p_jar") is not None and own.get("_p_oid") is not None and own["_p_changed"] is None:
            own["_p_jar"].setstate(cls)


class _Changed(_Data):
    """`_p_changed`: None, for a ghost, cannot be set; to delete it loads the state again."""

    def __get__(self, cls: Any, _metaclass: type | None = None) -> Any:
        return self if cls is None else cls._p_class_dict["_p_changed"]

    def __set__(self, cls: Any, value: Any) -> None:
        if value is not None:
            cls._p_class_dict["_p_changed"] = bool(value)

    def __delete__(self, cls: Any) -> None:
        cls._p_invalidate()


class _Method:
    """A method of the class itself, not of its instances, which look in the class for theirs of the same name."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __get__(self, cls: Any, _metaclass: type | None = None) -> Any:
        return self if cls is None else self._function.__get__(cls, type(cls))

    def __set__(self, _cls: Any, _value: Any) -> None:
        self._refuse()

    def __delete__(self, _cls: Any) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise AttributeError(f"{self._function.__name__} of a persistent class cannot be changed")


class PersistentMetaClass(type):
    """The class of classes that are objects of a database."""

    _p_jar = _Place()
    _p_oid = _Place()
    _p_serial = _Data()
    _p_changed = _Changed()
    _p_class_dict: dict[str, Any]

    def __new__(cls, name: str, bases: _Bases, attributes: dict[str, Any], changed: bool | None = False) -> Any:
        """Make a class; `changed` is None for one that is to load its state as soon as it knows from where."""
        kept = {key: value for key, value in attributes.items() if not key.startswith("_p_")}
        return super().__new__(cls, name, bases, {**kept, "_p_class_dict": {"_p_changed": changed}})

    def __init__(cls, name: str, bases: _Bases, attributes: dict[str, Any], changed: bool | None = False) -> None:
        super().__init__(name, bases, attributes)

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._note_change(name)
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        cls._note_change(name)
        super().__delattr__(name)

    def _note_change(cls, name: str) -> None:
        if name.startswith(("_p_", "_v_")):
            return
        own = cls._p_class_dict
        if own.get("_p_jar") is not None and own.get("_p_oid") is not None and own["_p_changed"] is False:
            own["_p_changed"] = True
            own["_p_jar"].register(cls)

    def _new_arguments(cls) -> tuple[Any, ...]:
        return cls.__name__, cls.__bases__, {}, None

    def _state(cls) -> tuple[_Bases, dict[str, Any]]:
        attributes = {
            name: value
            for name, value in vars(cls).items()
            if not (name.startswith(("_p_", "_v_")) or name in _NO_STATE)
        }
        return cls.__bases__, attributes

    def _set_state(cls, state: tuple[_Bases, dict[str, Any]]) -> None:
        # Past __setattr__: to be loaded is no change.
        bases, attributes = state
        if cls.__bases__ != bases:
            type.__setattr__(cls, "__bases__", bases)
        for name in [name for name in vars(cls) if name not in attributes and name not in _NO_STATE]:
            if name != "_p_class_dict":
                type.__delattr__(cls, name)
        for name, value in attributes.items():
            if not name.startswith("_p_"):
                type.__setattr__(cls, name, value)
        cls._p_changed = False

    def _activate(cls) -> None:
        cls._p_jar.setstate(cls)

    def _deactivate(cls) -> None:
        """Do nothing: a class is no ghost."""

    def _invalidate(cls) -> None:
        cls._p_class_dict["_p_changed"] = None
        if cls._p_jar is not None:
            cls._p_jar.setstate(cls)

    __getnewargs__ = _Method(_new_arguments)
    __getstate__ = _Method(_state)
    __setstate__ = _Method(_set_state)
    _p_activate = _Method(_activate)
    _p_deactivate = _Method(_deactivate)
    _p_invalidate = _Method(_invalidate)
