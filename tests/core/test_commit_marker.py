"""Commit markers, and that ZODB does not see them."""

from hypothesis import given
from hypothesis import strategies as st
from zodbpickle import pickle

from zeo_core.commit_marker import MARKER_BYTES, TAIL_MAX_BYTES, is_marked, marked, marker_of, unmarked
from zeo_core.transaction import check_extension, extension_bytes, extension_map

MARKER, OTHER = bytes(range(MARKER_BYTES)), bytes(MARKER_BYTES)


@given(st.dictionaries(st.text(), st.integers(-5, 5) | st.text() | st.none(), max_size=3))
def test_an_extension_with_a_marker_reads_as_it_did(extension: dict[str, object]) -> None:
    encoded = extension_bytes(extension)
    with_marker = marked(encoded, MARKER)
    assert pickle.loads(with_marker) == extension_map(with_marker) == extension
    check_extension(with_marker)
    assert unmarked(with_marker) == encoded
    assert len(with_marker) - len(encoded) <= TAIL_MAX_BYTES
    assert is_marked(with_marker, MARKER)
    assert not is_marked(with_marker, OTHER)
    assert marker_of(with_marker) == MARKER


@given(st.binary(max_size=50))
def test_what_has_no_marker_is_left_alone(extension: bytes) -> None:
    assert unmarked(extension) == extension
    assert marker_of(extension) == b""
    assert not is_marked(extension, MARKER)
