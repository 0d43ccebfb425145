"""Finds what makes an object unpicklable, and says what to do instead, for the error."""

import io
import sys
from collections.abc import Callable, Generator
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, Final
from weakref import ReferenceType

from zeo_client.state_walk import Part, walk

__all__ = ["advice", "culprit"]

_OPEN: Final = frozenset(("builtins", "collections", "copyreg", "functools", "types"))
"""Modules of Python's whose objects hold what users put there; inside those of others nobody wants to be led."""
_WHOLE: Final = frozenset(("zeo_client", "zeo_core", "zeo_server", "transaction"))
_VIEWS: Final[tuple[type, ...]] = (type({}.keys()), type({}.values()), type({}.items()), MappingProxyType, memoryview)


def culprit(obj: Any, is_reference: Callable[[Any], bool], can_be_pickled: Callable[[object], bool]) -> tuple[str, str]:
    """Return where in the state of the persistent `obj` that stands which cannot be pickled, and what to do about it.

    The path is like ".items[3].lock", and never a guess: empty if nothing was found that fails on its own.
    """
    if not can_be_pickled(type(obj)):
        return "", advice(obj)
    whole: Part | None = None  # the object of a library that the walk is in
    found: dict[type, bool] = {}  # classes: whether a pickle may name them
    for part in walk(obj, is_reference):
        value = part.value
        if whole is not None and not part.within(whole):
            whole = None
        if whole is None and part.reduced and _is_a_librarys(type(value)):
            whole = part
        fails = part.parts is None and not part.referred and not can_be_pickled(value)
        if (part.reduced or part.referred) and not fails:
            cls = type(value)  # references name it, too
            if cls not in found:
                found[cls] = can_be_pickled(cls)
            fails = not found[cls]
        if fails:
            at = whole or part
            return at.path, advice(at.value)
    return "", ""


def _is_a_librarys(cls: type) -> bool:
    top = cls.__module__.partition(".")[0]
    return top in _WHOLE or (top in sys.stdlib_module_names and top not in _OPEN and top != "__main__")


def advice(value: Any) -> str:
    """Say what `value` is, and what to keep in its place."""
    return f"{_described(value)} cannot be pickled; {_instead(value)}"


def _described(value: Any) -> str:
    if isinstance(value, FunctionType):
        code = value.__code__
        kind = "a lambda" if value.__name__ == "<lambda>" else f"the function {value.__qualname__}"
        return f"{kind}, defined at {code.co_filename}:{code.co_firstlineno},"
    if isinstance(value, type):
        return f"the class {_name(value)}"
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    return f"an object of the class {_name(type(value))}"


def _instead(value: Any) -> str:
    cls = value if isinstance(value, type) else type(value)
    # Functions and classes are pickled as names, and have to be found under them.
    if "<locals>" in cls.__qualname__:
        return f"define the class {cls.__name__} at the top level of a module, where loading can find it"
    if isinstance(value, FunctionType):
        return "keep the name of a function at the top level of a module, and look it up when it is called"
    if isinstance(value, type):
        return "have it at the top level of its module, under its own name"
    if isinstance(value, ModuleType):
        return "import it where it is used"
    if isinstance(value, io.IOBase):
        return "keep its path, or put the data into a zeo_client.Blob"
    if isinstance(value, Generator):
        return "keep a list of what it yields"
    if isinstance(value, _VIEWS):
        return "keep a list, a dictionary or bytes made from it"
    if isinstance(value, ReferenceType):
        return "use persistent.wref.WeakRef, which refers to persistent objects"
    return (
        "keep what it can be made from again, or hold it in an attribute of the persistent object whose name begins"
        " with _v_, which is not stored"
    )


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
