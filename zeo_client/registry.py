"""The storages that are installed, by name: the entry points in which distributions offer them."""

import importlib.metadata
from collections.abc import Callable
from typing import Any, Final

from zeo_core.errors import ConfigurationError
from zeo_core.storage import Transacts

__all__ = ["STORAGES", "storage_factory"]

STORAGES: Final = "zeod.storages"
"""The entry points' group: how zeo_client reaches the storages without importing the package that has them."""


def storage_factory(name: str) -> Callable[..., Transacts]:
    """Return what makes a storage of that kind ("filestorage", ...); ConfigurationError if nothing offers one."""
    for entry_point in importlib.metadata.entry_points(group=STORAGES, name=name):
        factory: Callable[..., Any] = entry_point.load()
        return factory
    raise ConfigurationError(f"no installed package offers {name!r} (entry points {STORAGES})")
