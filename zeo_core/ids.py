"""Object ids and transaction ids.

An oid and a tid are both 8 bytes, an unsigned 64-bit integer big-endian, so that bytes compare as the numbers do.
A tid is also a time stamp: its first four bytes count minutes, with months of 31 days, since 1900, and its last four
are the fraction of that minute in units of 60 / 2**32 seconds (the layout of `persistent.TimeStamp`). With the sign
bit clear that is enough from 1900 to 5908.
"""

import math
import time
from functools import lru_cache
from typing import TypeAlias

from persistent.timestamp import TimeStamp

__all__ = [
    "MAX_TID",
    "ROOT_OID",
    "ZERO_TID",
    "Oid",
    "Tid",
    "is_id",
    "next_tid",
    "oid_repr",
    "pack_id",
    "successor",
    "tid_from_time",
    "tid_repr",
    "tid_to_time",
    "unpack_id",
]

Oid: TypeAlias = bytes
Tid: TypeAlias = bytes

ROOT_OID: Oid = b"\0" * 8
"""The object every database starts from."""

ZERO_TID: Tid = b"\0" * 8
"""The tid of an empty storage, and the serial that the first store of an object names."""

MAX_TID: Tid = b"\x7f" + b"\xff" * 7
"""Later than every transaction; ZODB keeps the sign bit clear so that tids fit a signed integer."""


_FIRST_TIME_S = -2_208_988_800.0  # ZERO_TID: 1900-01-01
_END_TIME_S = 124_299_454_080.0  # the minute after MAX_TID's: 5908-11-23 02:08
_LAST_SECOND = math.nextafter(60.0, 0.0)
_SECOND_UNIT = 60 / 2**32


def pack_id(number: int) -> bytes:
    """Return `number` (0 <= number < 2**64) as an 8-byte id; OverflowError outside of that range."""
    return number.to_bytes(8, "big")


def unpack_id(identifier: bytes) -> int:
    """Return the number that an 8-byte id stands for."""
    return int.from_bytes(identifier, "big")


def is_id(value: object) -> bool:
    """Tell whether `value` has the type and length of an oid or tid."""
    return isinstance(value, bytes) and len(value) == 8


def successor(identifier: bytes) -> bytes:
    """Return the next id: what `load_before` wants to see the state *as of* a tid."""
    return pack_id(unpack_id(identifier) + 1)


def oid_repr(oid: object) -> str:
    """Return an oid the way ZODB's tools print it, 0x2a; anything that is no oid comes back as its repr."""
    if not (isinstance(oid, bytes) and len(oid) == 8):
        return repr(oid)
    return f"0x{oid.lstrip(bytes(1)).hex() or '00'}"


def tid_repr(tid: object) -> str:
    """Return a tid as hexadecimal and UTC time; anything that is no tid comes back as its repr."""
    if not (isinstance(tid, bytes) and len(tid) == 8):
        return repr(tid)
    return f"0x{unpack_id(tid):016x} {TimeStamp(tid)}" if tid > ZERO_TID else f"0x{unpack_id(tid):016x}"


def tid_from_time(seconds: float) -> Tid:
    """Return the tid for `seconds` since the Unix epoch; ValueError for a time that no tid can hold."""
    if not _FIRST_TIME_S <= seconds < _END_TIME_S:  # also for a NaN
        raise ValueError(f"{seconds} seconds since 1970 is no time between 1900 and 5908, so that no tid can hold it")
    # A tiny negative number modulo 60 is rounded up to 60, which TimeStamp would take for 0.
    second = min(seconds % 60, _LAST_SECOND)
    return _minute_of(seconds // 60) + int(second / _SECOND_UNIT).to_bytes(4, "big")


@lru_cache(maxsize=1)  # the clock's: a commit asks for a tid, and many commits have the same minute
def _minute_of(minutes: float) -> bytes:
    """Return the first half of the tids of a minute, counted since the Unix epoch."""
    raw: bytes = TimeStamp(*time.gmtime(minutes * 60)[:5]).raw()
    return raw[:4]


def tid_to_time(tid: Tid) -> float:
    """Return the seconds since the Unix epoch that `tid` stands for."""
    seconds: float = TimeStamp(tid).timeTime()
    return seconds


def next_tid(last: Tid, now_s: float) -> Tid:
    """Return the tid for a transaction at `now_s`: later than `last` even when the clock stands or has stepped back.

    A clock outside what a tid can hold is like one that stands. OverflowError when only MAX_TID is left, which no load
    would see.
    """
    try:
        stamp = tid_from_time(now_s)
    except ValueError:
        stamp = ZERO_TID
    tid = stamp if stamp > last else successor(last)
    if tid >= MAX_TID:
        raise OverflowError(f"no tid is left after {tid_repr(last)}")
    return tid
