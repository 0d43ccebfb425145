"""Resolving conflicts on the client."""

import pytest
from persistent.mapping import PersistentMapping

from tests.core import test_protobuf_resolve as messages
from tests.core.test_resolve import Counter, record, state_of
from zeo_client.class_aliases import register_alias
from zeo_client.replies import ToResolve
from zeo_client.resolver import Resolver
from zeo_core.errors import ConflictError, POSKeyError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_core.protobuf_record import ClassMetadata, decode, encode
from zeo_core.record import class_name

A = pack_id(1)
READ, COMMITTED = pack_id(10), pack_id(11)
STATES = {READ: record(Counter, {"n": 10}), COMMITTED: record(Counter, {"n": 15})}


def load_serial(oid: Oid, tid: Tid) -> bytes:
    if tid not in STATES:
        raise POSKeyError(oid)
    return STATES[tid]


def test_both_changes_are_kept() -> None:
    resolver = Resolver("test", load_serial)
    new = record(Counter, {"n": 12})
    assert state_of(resolver.resolve(ToResolve(A, COMMITTED, READ, None), new)) == {"n": 17}
    told = record(Counter, {"n": 100})
    assert state_of(resolver.resolve(ToResolve(A, COMMITTED, READ, told), new)) == {"n": 102}


@pytest.mark.parametrize(
    ("read", "new"),
    [
        (READ, b"no record"),
        (READ, None),
        (pack_id(9), record(Counter, {"n": 12})),
        (ZERO_TID, record(Counter, {"n": 12})),
    ],
)
def test_what_cannot_be_resolved_is_a_conflict(read: Tid, new: bytes | None) -> None:
    with pytest.raises(ConflictError) as caught:
        Resolver("test", load_serial).resolve(ToResolve(A, COMMITTED, read, None), new)
    assert (caught.value.oid, caught.value.serials) == (A, (COMMITTED, read))


def test_records_are_transformed_as_the_db_says() -> None:
    class Wrapper:
        def transform_record_data(self, data: bytes) -> bytes:
            return data.hex().encode("ascii")

        def untransform_record_data(self, data: bytes) -> bytes:
            return bytes.fromhex(data.decode("ascii"))

    wrapper = Wrapper()
    resolver = Resolver("test", lambda oid, tid: wrapper.transform_record_data(load_serial(oid, tid)))
    resolver.use(wrapper)
    new = wrapper.transform_record_data(record(Counter, {"n": 12}))
    resolved = resolver.resolve(ToResolve(A, COMMITTED, READ, None), new)
    assert state_of(wrapper.untransform_record_data(resolved)) == {"n": 17}


def test_a_class_that_has_moved_resolves_the_records_of_before() -> None:
    old, committed, new = (
        record(Counter, {"n": n}).replace(b"tests.core.test_resolve\nCounter", b"counters_of_before\nCounter")
        for n in (10, 15, 12)
    )
    assert class_name(new) == "counters_of_before.Counter"
    register_alias("counters_of_before.Counter", Counter)
    resolver = Resolver("test", lambda oid, tid: old)
    assert resolver.may_resolve(new)
    assert state_of(resolver.resolve(ToResolve(A, COMMITTED, READ, committed), new)) == {"n": 17}


def test_only_what_may_be_resolved_is_offered() -> None:
    resolver = Resolver("test", load_serial)
    for _ in range(2):
        assert resolver.may_resolve(record(Counter, {"n": 1}))
        assert not resolver.may_resolve(record(PersistentMapping, {}))
    assert not resolver.may_resolve(None)
    assert not resolver.may_resolve(b"no record")
    assert resolver.may_resolve(record(Counter, {}).replace(b"Counter", b"Nowhere"))  # resolving will tell


def test_states_that_are_messages_are_merged_by_the_class_of_the_object() -> None:
    def under_its_name(data: bytes) -> bytes:
        return encode(decode(data)._replace(class_meta=ClassMetadata(messages.__name__, "PContact")))

    old, committed, new = map(under_its_name, (messages.OLD, messages.COMMITTED, messages.NEW))
    resolver = Resolver("test", lambda oid, tid: old)
    assert resolver.may_resolve(new)
    merged = messages.shown(resolver.resolve(ToResolve(A, COMMITTED, READ, committed), new))
    assert merged["guardians"] == [messages.ALICE, messages.BOB, messages.CAROL, messages.DAVE]
    clash = under_its_name(messages.record([], name="X"))
    with pytest.raises(ConflictError, match=r"class .*PContact"):
        resolver.resolve(ToResolve(A, COMMITTED, READ, clash), new)
