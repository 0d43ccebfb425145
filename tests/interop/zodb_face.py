"""ZODB's names with our objects behind them: what ZODB's own tests are given instead of ZODB.

    face = Face({"DB": {"DB": zeo_client.DB}, ...})
    with face.worn():
        import ZODB.DB         # ZODB.DB.DB is ours

While a face is worn, `sys.modules` holds our modules under ZODB's names, and ZODB's tests are imported anew against
them; what is no part of the object layer (ZODB.utils, ZODB.interfaces, ZODB.POSException, ...) is ZODB's own. A face
that is not worn leaves no trace, so that ZODB's and our tests can run in one process.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ZODB
import ZODB.config
import ZODB.tests

__all__ = ["Face", "Translation"]

Translation = Mapping[str, str]
"""Source text of a test -> the same in our words."""


class Face:
    """ZODB's package with the modules named in `replaced` in the place of its own: name in ZODB -> what it has."""

    def __init__(self, replaced: Mapping[str, Mapping[str, Any]]) -> None:
        self._modules: dict[str, ModuleType] = {"ZODB": _package(replaced.get("", {}))}
        for name, names in replaced.items():
            if name:
                self._modules[f"ZODB.{name}"] = _module(f"ZODB.{name}", names)
        for name, module in self._modules.items():
            package, _, last = name.rpartition(".")
            if package and last not in replaced.get("", {}):  # ZODB.DB is the class, also where ZODB.DB is a module
                setattr(self._modules[package], last, module)

    @contextmanager
    def worn(self) -> Iterator[None]:
        """Put the face on; ZODB's tests that are imported meanwhile stay with the face."""
        own = {name: module for name, module in sys.modules.items() if self._hides(name)}
        for name in own:
            del sys.modules[name]
        sys.modules.update(self._modules)
        try:
            yield
        finally:
            for name in [name for name in sys.modules if self._hides(name)]:
                self._modules[name] = sys.modules.pop(name)
            sys.modules.update(own)

    def test_module(self, name: str, translation: Translation) -> ModuleType:
        """Return ZODB's test module of that name as it is under this face, its source translated."""
        with self.worn():
            importlib.import_module("ZODB.tests")
            spec = importlib.util.find_spec(f"ZODB.tests.{name}")
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin).read_text("utf-8")
            for theirs, ours in translation.items():
                source = source.replace(theirs, ours)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            setattr(sys.modules["ZODB.tests"], name, module)
            exec(compile(source, spec.origin, "exec"), vars(module))
            return module

    def _hides(self, name: str) -> bool:
        return name in self._modules or name == "ZODB.tests" or name.startswith("ZODB.tests.")


def _package(names: Mapping[str, Any]) -> ModuleType:
    package = _module("ZODB", names)
    package.__path__ = ZODB.__path__
    return package


def _module(name: str, names: Mapping[str, Any]) -> ModuleType:
    """Return a module that has `names`, and beside them what ZODB's module of that name has."""
    module = ModuleType(name, "ZODB's name, our objects.")
    real = importlib.import_module(name)
    module.__file__ = real.__file__

    def fall_back(attribute: str) -> Any:
        if attribute == "tests":  # never the real ones: they have ZODB's names
            raise AttributeError(attribute)
        return getattr(real, attribute)

    module.__dict__["__getattr__"] = fall_back
    vars(module).update(names)
    return module
