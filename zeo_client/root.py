"""The convenient face of a database's root: `conn.root.accounts` for `conn.root()["accounts"]`."""

from collections.abc import MutableMapping
from typing import Any

__all__ = ["Root"]

_SHOWN_CHARACTERS = 60


class Root:
    """Attributes are the root mapping's items; called, it gives the mapping itself."""

    __slots__ = ("_mapping",)

    def __init__(self, mapping: MutableMapping[str, Any]) -> None:
        object.__setattr__(self, "_mapping", mapping)

    def __call__(self) -> Any:
        """Return the root mapping."""
        return self._mapping

    def __getattr__(self, name: str) -> Any:
        try:
            return self._mapping[name]
        except KeyError:
            raise AttributeError(f"the database's root has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._mapping[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._mapping[name]
        except KeyError:
            raise AttributeError(f"the database's root has no {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted(str(name) for name in self._mapping)

    def __repr__(self) -> str:
        names = " ".join(sorted(str(name) for name in self._mapping))
        if len(names) > _SHOWN_CHARACTERS:
            names = names[: _SHOWN_CHARACTERS - 3].rsplit(" ", 1)[0] + " ..."
        return f"<root: {names}>"
