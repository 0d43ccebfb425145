"""Ids: the layout against persistent's own time stamps, order, and clocks that lie."""

import time
from typing import Any

import pytest
import ZODB.utils
from hypothesis import example, given
from hypothesis import strategies as st
from persistent.timestamp import TimeStamp

from zeo_core import ids

FIRST_S = -2_208_988_800.0
END_S = 124_299_454_080.0

numbers = st.integers(0, 2**64 - 1)
valid_tids = st.integers(0, ids.unpack_id(ids.MAX_TID)).map(ids.pack_id)
times = st.floats(FIRST_S, END_S, exclude_max=True)
any_clock = st.floats(allow_nan=True, allow_infinity=True)


@given(numbers, numbers)
def test_ids_are_ordered_as_their_numbers(a: int, b: int) -> None:
    packed = ids.pack_id(a), ids.pack_id(b)
    assert (packed[0] < packed[1]) == (a < b)
    assert [ids.unpack_id(identifier) for identifier in packed] == [a, b]
    assert packed == (ZODB.utils.p64(a), ZODB.utils.p64(b))


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_outside_eight_bytes_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        ids.pack_id(number)


@pytest.mark.parametrize("value", [b"", b"1234567", b"123456789", "12345678", bytearray(8), 8, None, (b"12345678",)])
def test_what_is_no_id(value: object) -> None:
    assert not ids.is_id(value)
    assert ids.oid_repr(value) == repr(value)
    assert ids.tid_repr(value) == repr(value)


@given(numbers.map(ids.pack_id))
def test_every_eight_bytes_are_an_id_and_can_be_shown(identifier: bytes) -> None:
    assert ids.is_id(identifier)
    assert ids.oid_repr(identifier) == ZODB.utils.oid_repr(identifier)
    assert ids.tid_repr(identifier).startswith(f"0x{identifier.hex()}")


def test_a_tid_is_shown_with_its_time() -> None:
    assert ids.tid_repr(ids.tid_from_time(0)) == "0x023c2b0000000000 1970-01-01 00:00:00.000000"
    assert ids.tid_repr(ids.ZERO_TID) == "0x0000000000000000"


@given(st.integers(0, 2**64 - 2))
def test_the_successor_is_the_next_number(number: int) -> None:
    assert ids.successor(ids.pack_id(number)) == ids.pack_id(number + 1)


def test_the_last_ids_have_successors_as_far_as_eight_bytes_go() -> None:
    assert ids.successor(ids.MAX_TID) == b"\x80" + bytes(7)
    with pytest.raises(OverflowError):
        ids.successor(b"\xff" * 8)


@given(times)
@example(-1e-20)  # modulo 60 it is rounded up to 60, which TimeStamp takes for 0
@example(59.9999999)
@example(59.99999999999999)
@example(915_148_799.9999999)  # before the leap second at the end of 1998
@example(FIRST_S)
@example(END_S - 0.0001)
def test_a_tid_is_the_time_it_was_made_from(seconds: float) -> None:
    tid = ids.tid_from_time(seconds)
    assert ids.ZERO_TID <= tid <= ids.MAX_TID
    assert ids.tid_to_time(tid) == pytest.approx(seconds, abs=1e-5, rel=1e-14)


@given(st.floats(0, 2**33))
def test_a_tid_is_what_zodb_makes_of_the_time(seconds: float) -> None:
    fields: Any = time.gmtime(seconds)[:5]
    assert ids.tid_from_time(seconds) == TimeStamp(*fields, seconds % 60).raw()


@given(times, times)
def test_tids_are_ordered_as_their_times(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert ids.tid_from_time(low) <= ids.tid_from_time(high)


@given(valid_tids)
def test_the_time_of_a_tid_is_that_of_its_time_stamp(tid: bytes) -> None:
    assert ids.tid_to_time(tid) == TimeStamp(tid).timeTime()


@pytest.mark.parametrize(
    "seconds", [FIRST_S - 1, FIRST_S - 1e-6, END_S, 1e12, 1e300, float("nan"), float("inf"), -float("inf")]
)
def test_a_time_that_no_tid_can_hold_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"no tid can hold it"):
        ids.tid_from_time(seconds)


@given(st.integers(0, ids.unpack_id(ids.MAX_TID) - 2).map(ids.pack_id), any_clock)
@example(ids.ZERO_TID, float("nan"))
@example(ids.tid_from_time(1e9), 1e9)  # a clock that stands
@example(ids.tid_from_time(1e9), 1e12)  # its tid would need more than 8 bytes and begin anew at 1900
@example(ids.tid_from_time(59.999999), -1e-20)
def test_the_next_tid_is_later_whatever_the_clock_says(last: bytes, clock_s: float) -> None:
    tid = ids.next_tid(last, clock_s)
    assert last < tid < ids.MAX_TID


@given(st.lists(st.floats(-1e6, 1e10), max_size=20))
def test_tids_grow_under_a_clock_that_jumps(clock: list[float]) -> None:
    last = ids.ZERO_TID
    for now_s in clock:
        tid = ids.next_tid(last, now_s)
        assert tid > last
        last = tid


def test_the_next_tid_is_the_clocks_if_that_is_later() -> None:
    assert ids.next_tid(ids.ZERO_TID, 1e9) == ids.tid_from_time(1e9)


@pytest.mark.parametrize("last", [ids.pack_id(2**63 - 2), ids.MAX_TID, b"\x80" + bytes(7), b"\xff" * 8])
def test_no_tid_is_given_that_no_load_would_see(last: bytes) -> None:
    with pytest.raises(OverflowError):
        ids.next_tid(last, 0)
