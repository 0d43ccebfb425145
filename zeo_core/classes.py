"""Finding a class by the names that a record has for it."""

from importlib import import_module
from typing import Any

__all__ = ["import_class"]


def import_class(module: str, name: str) -> Any:
    """Return a class by its names, as unpickling would; ImportError or AttributeError if there is none."""
    return getattr(import_module(module), name)
