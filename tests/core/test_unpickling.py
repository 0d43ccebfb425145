"""The guard against pickles that are small and make much."""

import pickle

import pytest
from zodbpickle import pickle as zodbpickle

from zeo_core.unpickling import check_memo


@pytest.mark.parametrize("protocol", range(4))
def test_honest_pickles_pass(protocol: int) -> None:
    shared = ["a"]
    check_memo(zodbpickle.dumps([shared, shared, {"key": (1, 2.5, None)}] * 300, protocol))


@pytest.mark.parametrize("put", [b"r\x00\x00\x00\x08", b"p134217728\n", b"q\xff"])
def test_a_large_index_in_few_bytes_is_refused(put: bytes) -> None:
    with pytest.raises(ValueError, match="memo index"):
        check_memo(pickle.PROTO + b"\x03}" + put + b".")


def test_only_as_many_pickles_are_looked_at_as_are_asked_for() -> None:
    check_memo(b"N.}r\x00\x00\x00\x08.")
    with pytest.raises(ValueError, match="memo index"):
        check_memo(b"N.}r\x00\x00\x00\x08.", pickles=2)
