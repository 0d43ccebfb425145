"""Conflict resolution for records whose state is a Protocol Buffers message: a merge, with no code of the application.

In a state, objects are referred to by refids, whose meaning is in the record's envelope, and which each side gives out
for itself. So before the states are merged their refids are made the same for the same object: the merge compares
objects, not numbers. A refid that stands in no field which the schema knows cannot be changed; then the conflict stays.

The schema comes from the caller: a MergeRule, which in the client a class makes, in the server the configuration.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from zeo_core.protobuf_merge import MergeConflict, merge
from zeo_core.protobuf_record import ObjectRecord, Reference, decode, encode

__all__ = ["MergeRule", "RuleOf", "merge_records", "merge_rule"]

_REFID: Final = "_p_refid"
_UINT32: Final = 13  # FieldDescriptor.TYPE_UINT32


class MergeRule(NamedTuple):
    """How the states of a class are merged: its message's class, and the paths of repeated fields that are sets."""

    message: Any
    sets: frozenset[str] = frozenset()


RuleOf = Callable[[str, str], MergeRule | None]
"""Returns the rule for a class, by its module's name and its own; None for one that is not merged."""


def merge_rule(cls: Any) -> MergeRule | None:
    """Return what a class with a `protobuf_type`, and perhaps `protobuf_sets`, says of itself."""
    message = getattr(cls, "protobuf_type", None)
    return None if message is None else MergeRule(message, frozenset(getattr(cls, "protobuf_sets", ())))


def merge_records(old: bytes, committed: bytes, new: bytes, rule: MergeRule) -> bytes:
    """Return the record with both sides' changes; MergeConflict if there is none.

    Whatever else is raised tells that the records are no such ones, or that the schema is not theirs.
    """
    records = [decode(data) for data in (old, committed, new)]
    if records[1].class_meta != records[2].class_meta:
        raise MergeConflict("the object's class")
    numbers = _Numbers()
    # The committed state goes first, so that its numbers stay as they are.
    now = numbers.message(records[1], rule)
    wanted = numbers.message(records[2], rule)
    was = numbers.message(records[0], rule)
    merged = merge(was, now, wanted, rule.sets)
    state = merged.SerializeToString(deterministic=True)
    return encode(ObjectRecord(records[1].class_meta, state, numbers.references(merged)))


class _Target(NamedTuple):
    """What makes an object one and the same; references to it may name its class or not."""

    zoid: int
    database: str | None
    weak: bool


class _Numbers:
    """Refids that mean the same in all three states."""

    def __init__(self) -> None:
        self._refids: dict[_Target, int] = {}
        self._references: dict[int, Reference] = {}

    def message(self, record: ObjectRecord, rule: MergeRule) -> Any:
        """Return the record's state, its refids changed to ours."""
        message = rule.message.FromString(record.state)
        refids = {reference.refid: self._refid(reference) for reference in record.references}
        used = set()
        for place in _reference_messages(message):
            refid = getattr(place, _REFID)
            if refid not in refids:
                raise ValueError(f"the state refers to an object as {refid}, which is none of the references")
            used.add(refid)
            setattr(place, _REFID, refids[refid])
        if used != refids.keys():
            raise ValueError(f"refids stand in fields that the schema lacks: {sorted(refids.keys() - used)}")
        return message

    def _refid(self, reference: Reference) -> int:
        target = _Target(reference.zoid, None if reference.weak else reference.database, reference.weak)
        refid = self._refids.get(target)
        if refid is None:
            taken = reference.refid in self._references
            refid = max(self._references) + 1 if taken else reference.refid
            self._refids[target] = refid
            self._references[refid] = reference._replace(refid=refid)
        return refid

    def references(self, message: Any) -> tuple[Reference, ...]:
        """Return those that a state uses."""
        used = {getattr(place, _REFID) for place in _reference_messages(message)}
        return tuple(reference for refid, reference in self._references.items() if refid in used)


def _reference_messages(message: Any) -> Iterator[Any]:
    """Walk the messages that refer to an object: those that have a `_p_refid`, at any depth."""
    descriptor = message.DESCRIPTOR
    if _is_reference(descriptor) and getattr(message, _REFID):
        yield message
    for field in descriptor.fields:
        kind = field.message_type
        if kind is None or not _leads_to_references(kind):
            continue
        if not field.is_repeated:
            inner = [getattr(message, field.name)] if message.HasField(field.name) else []
        elif kind.GetOptions().map_entry:
            inner = list(getattr(message, field.name).values())
        else:
            inner = getattr(message, field.name)
        for each in inner:
            yield from _reference_messages(each)


def _is_reference(descriptor: Any) -> bool:
    field = descriptor.fields_by_name.get(_REFID)
    return field is not None and field.type == _UINT32 and not field.is_repeated


@lru_cache(maxsize=1024)
def _leads_to_references(descriptor: Any) -> bool:
    """Tell whether a message of this type may be, or have in it, one that refers to an object."""
    seen, waiting = {descriptor.full_name}, [descriptor]
    while waiting:
        current = waiting.pop()
        if _is_reference(current):
            return True
        for field in current.fields:
            if field.message_type is not None and field.message_type.full_name not in seen:
                seen.add(field.message_type.full_name)
                waiting.append(field.message_type)
    return False
