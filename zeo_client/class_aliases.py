"""Classes that moved: under which names of before a class is found, in a database that still has records with them."""

from typing import Any

__all__ = ["aliased", "register_alias"]

_classes: dict[tuple[str, str], Any] = {}


def register_alias(dotted_name: str, cls: type) -> None:
    """Have records find `cls` under the name that it had before, "module.Name", for the whole process.

    What is stored from now on has the new name. What a loaded module still has under the old one goes before the alias.
    ValueError for a name without a module.
    """
    module, _, name = dotted_name.rpartition(".")
    if not module or not name:
        raise ValueError(f"an alias is a module and a name, such as 'shop.models.Order', not {dotted_name!r}")
    _classes[module, name] = cls


def aliased(module: str, name: str) -> Any:
    """Return the class that had these names before, None if none is known."""
    return _classes.get((module, name))
