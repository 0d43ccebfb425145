"""Three-way merge of Protocol Buffers messages, field by field.

`old` is what both sides began with, `committed` what the other one stored, `new` what this one wants to store. A field
that only one side has changed is as that side has it; one that both have changed to the same is that. What both have
changed to different things is looked into further:

    sub-message             its fields are merged in turn; types of google.protobuf (Timestamp, ...) are one value
    map                     its keys are
    repeated, in `sets`     what either side has taken out goes, what either has put in comes, in the order of
                            `committed`; the same element twice is one
    oneof                   merged in turn if both sides have the same sub-message in it
    all else                MergeConflict, which names the field

Fields that the schema lacks, and extensions, are taken together as one value: they may come from either side.

The package `protobuf` is not imported: messages bring with them all that is needed to look into them.
"""

import struct
from collections.abc import Collection, Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

__all__ = ["MergeConflict", "merge"]

_ABSENT: Final = ("absent",)
_WHOLE_PACKAGE: Final = "google.protobuf."


class MergeConflict(Exception):
    """Both sides have changed the field `path`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"both sides have changed {self.path}"


def merge(old: Any, committed: Any, new: Any, sets: Collection[str] = ()) -> Any:
    """Return a message with both sides' changes; MergeConflict if there is none. The three stay as they are.

    `sets` names repeated fields by their paths: "guardians", "address.lines".
    """
    result = type(committed)()
    result.CopyFrom(committed)
    _Merge(sets).message(old, result, new, "")
    return result


class _Merge:
    """One merge. `result` begins as what is committed, and is given the changes from `old` to `new`."""

    def __init__(self, sets: Collection[str]) -> None:
        self._sets = sets

    def message(self, old: Any, result: Any, new: Any, path: str) -> None:
        """Merge all fields of a message that stands at `path`."""
        _merge_rest(old, result, new, path)
        for unit in _units(result.DESCRIPTOR):
            was, now, wanted = (_frozen_unit(each, unit) for each in (old, result, new))
            if wanted in (was, now):
                continue
            if now == was:
                _replace(result, new, unit)
            else:
                self._both(old, result, new, unit, path)

    def _both(self, old: Any, result: Any, new: Any, unit: Sequence[Any], path: str) -> None:
        field, wanted = _chosen(result, unit), _chosen(new, unit)
        if field is None or field is not wanted:
            raise MergeConflict(path + _name(unit))
        inner = path + field.name
        if _is_map(field):
            self._map(field, old, result, new, inner)
        elif field.is_repeated:
            if inner not in self._sets:
                raise MergeConflict(inner)
            _merge_set(field, old, result, new)
        elif field.message_type is None or field.message_type.full_name.startswith(_WHOLE_PACKAGE):
            raise MergeConflict(inner)
        else:
            inner_old, inner_result, inner_new = (getattr(each, field.name) for each in (old, result, new))
            self.message(inner_old, inner_result, inner_new, inner + ".")

    def _map(self, field: Any, old: Any, result: Any, new: Any, path: str) -> None:
        value = field.message_type.fields_by_name["value"]
        frozen = [_frozen(field, each) for each in (old, result, new)]
        maps = [getattr(each, field.name) for each in (old, result, new)]
        for key in sorted(frozen[0].keys() | frozen[2].keys()):
            was, now, wanted = (each.get(key, _ABSENT) for each in frozen)
            if wanted in (was, now):
                continue
            if now == was:
                _replace_key(maps[1], maps[2], key, is_message=value.message_type is not None)
            elif _ABSENT in (now, wanted) or value.message_type is None:
                raise MergeConflict(f"{path}[{key!r}]")
            else:
                base = maps[0][key] if was is not _ABSENT else type(maps[2][key])()
                self.message(base, maps[1][key], maps[2][key], f"{path}.")


def _merge_rest(old: Any, result: Any, new: Any, path: str) -> None:
    """Merge what the schema lacks, as one value."""
    was, now, wanted = map(_rest, (old, result, new))
    if wanted in (was, now):
        return
    if now != was:
        raise MergeConflict(f"{path}(fields that the schema lacks)")
    known = type(result)()
    for unit in _units(result.DESCRIPTOR):
        _replace(known, result, unit)
    known.MergeFromString(wanted)
    result.CopyFrom(known)


def _rest(message: Any) -> bytes:
    """Return the fields that the schema lacks, and extensions."""
    rest = type(message)()
    rest.CopyFrom(message)
    for field in message.DESCRIPTOR.fields:
        rest.ClearField(field.name)
    encoded: bytes = rest.SerializePartialToString(deterministic=True)
    return encoded


@lru_cache(maxsize=1024)
def _units(descriptor: Any) -> Iterable[Sequence[Any]]:
    """Return what is merged as one: each field that stands alone, and the fields of each oneof together."""
    alone = [(field,) for field in descriptor.fields if field.containing_oneof is None]
    return [*alone, *(tuple(oneof.fields) for oneof in descriptor.oneofs)]


def _name(unit: Sequence[Any]) -> str:
    oneof = unit[0].containing_oneof
    return str(unit[0].name if oneof is None or len(unit) == 1 else oneof.name)


def _chosen(message: Any, unit: Sequence[Any]) -> Any:
    """Return the unit's field that is set; None if none is."""
    for field in unit:
        if not field.has_presence or message.HasField(field.name):
            return field
    return None


def _frozen_unit(message: Any, unit: Sequence[Any]) -> Any:
    """Return what is equal for units that hold the same."""
    field = _chosen(message, unit)
    return _ABSENT if field is None else (field.number, _frozen(field, message))


def _frozen(field: Any, message: Any) -> Any:
    value = getattr(message, field.name)
    if _is_map(field):
        kind = field.message_type.fields_by_name["value"]
        return {key: _frozen_value(kind, value[key]) for key in value}
    if field.is_repeated:
        return [_frozen_value(field, element) for element in value]
    return _frozen_value(field, value)


def _frozen_value(field: Any, value: Any) -> Hashable:
    if field.message_type is not None:
        return value.SerializePartialToString(deterministic=True)  # type: ignore[no-any-return]
    if isinstance(value, float):
        return struct.pack("<d", value)  # a NaN is not equal to itself, but no change; 0.0 to -0.0 is one
    return value  # type: ignore[no-any-return]


@lru_cache(maxsize=4096)
def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _replace(result: Any, source: Any, unit: Sequence[Any]) -> None:
    """Make a unit what it is in `source`."""
    for field in unit:
        result.ClearField(field.name)
    field = _chosen(source, unit)
    if field is None:
        return
    value = getattr(source, field.name)
    if field.is_repeated:
        getattr(result, field.name).MergeFrom(value)
    elif field.message_type is not None:
        getattr(result, field.name).CopyFrom(value)
        getattr(result, field.name).SetInParent()  # also if it is empty
    else:
        setattr(result, field.name, value)


def _replace_key(result: Any, source: Any, key: Any, *, is_message: bool) -> None:
    """Make an entry of a map what it is in `source`."""
    if key not in source:
        del result[key]
    elif is_message:
        result[key].CopyFrom(source[key])
    else:
        result[key] = source[key]


def _merge_set(field: Any, old: Any, result: Any, new: Any) -> None:
    was, wanted = (dict.fromkeys(_frozen(field, each)) for each in (old, new))
    ours, theirs = getattr(result, field.name), getattr(new, field.name)
    now = dict(zip(_frozen(field, result), list(ours), strict=True))
    coming = dict(zip(_frozen(field, new), list(theirs), strict=True))
    kept = [value for key, value in now.items() if key in wanted or key not in was]
    added = [value for key, value in coming.items() if key not in was and key not in now]
    merged = type(result)()
    getattr(merged, field.name).extend([*kept, *added])
    result.ClearField(field.name)
    getattr(result, field.name).MergeFrom(getattr(merged, field.name))
