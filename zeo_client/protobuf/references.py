"""The references of one object, as messages: their targets are set and asked for here."""

from typing import Any

from google.protobuf.message import Message

from zeo_client.protobuf.messages import MessageView
from zeo_client.protobuf.reach import REFID, is_reference
from zeo_client.protobuf.state import Held

__all__ = ["ProtobufReferences"]


class ProtobufReferences:
    """Gives reference messages their targets; `obj.protobuf_refs` is for the messages in the state of `obj` only."""

    __slots__ = ("_held", "_targets")

    def __init__(self, held: Held) -> None:
        self._held = held
        self._targets = held.targets

    def set(self, ref: Any, target: Any) -> None:
        """Let the reference message `ref` refer to `target`."""
        self._check(ref)
        setattr(ref, REFID, self._held.refid_of(target))

    def get(self, ref: Any, default: Any = None) -> Any:
        """Return what `ref` refers to, `default` if it has no target.

        An object that is shown in the place of a reference message is returned itself.
        """
        if ref is None:
            return default
        if not _is_reference_message(ref):
            return ref
        return self._targets.get(getattr(ref, REFID), default)

    def delete(self, ref: Any) -> None:
        """Let `ref` refer to nothing."""
        self._check(ref)
        ref.ClearField(REFID)

    def _check(self, ref: Any) -> None:
        if not _is_reference_message(ref):
            raise TypeError(
                f"a reference message is wanted, one with a field {REFID}, not {ref!r:.100}: what add() of a repeated"
                " field returned, or from obj.protobuf, where references are not shown as the objects that they lead to"
            )


def _is_reference_message(ref: Any) -> bool:
    return (type(ref) is MessageView or isinstance(ref, Message)) and is_reference(ref.DESCRIPTOR)
