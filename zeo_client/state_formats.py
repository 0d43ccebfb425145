"""Formats of records beside pickles, as the object layer knows them: who writes an object's state, who reads a record.

zeo_core.record knows formats by what can be told of a record without any class; here they make objects. A class chooses
the format of its records by the type of what its `__getstate__` returns. A program switches formats on by registering
them; what is not switched on is neither read nor written, and such states are pickled.
"""

from collections.abc import Callable
from typing import Any, Protocol

from zeo_core.errors import RecordFormatError
from zeo_core.record import format_name

__all__ = ["STATE_FORMATS", "StateFormat", "format_of_record", "register_state_format"]


class StateFormat(Protocol):
    """What the object layer has to know of a format. References are as zeo_core.record has them for pickles.

    `data` is the whole record, its prefix included; RecordFormatError for data that are no such record.
    """

    def record(self, obj: Any, state: Any, reference_to: Callable[[Any], Any]) -> bytes:
        """Return the record of `obj`, of which `state` is what `__getstate__` gave.

        `reference_to` returns the reference to an object, and puts it in line to be stored if it is new; None for what
        is not persistent.
        """

    def class_names(self, data: bytes) -> tuple[str, str]:
        """Return the names of the module and of the class."""

    def state(self, data: bytes, load_reference: Callable[[Any], Any]) -> Any:
        """Return what `__setstate__` is to be given; `load_reference` returns the object for a reference."""


STATE_FORMATS: dict[type, StateFormat] = {}
"""The formats that are switched on, by the type of the states that they write."""

_by_mark: dict[bytes, StateFormat] = {}  # by what their records begin with: their names in braces
_MAX_MARK_BYTES = 64  # as in zeo_core.record


def register_state_format(name: str, state_type: type, state_format: StateFormat) -> None:
    """Switch a format on for the process; harmless when repeated."""
    STATE_FORMATS[state_type] = state_format
    _by_mark[b"{%b}" % name.encode()] = state_format


def format_of_record(data: bytes) -> StateFormat:
    """Return the format of a record that is no pickle; RecordFormatError if it is not switched on."""
    try:
        return _by_mark[data[: data.find(b"}", 1, _MAX_MARK_BYTES) + 1]]
    except KeyError:
        name = format_name(data)
        hint = "call zeo_client.protobuf.register() first" if name == "protobuf" else "is its package installed?"
        raise RecordFormatError(f"an object record of the format {name!r}, which nobody registered: {hint}") from None
