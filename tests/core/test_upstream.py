"""A transaction that is passed on."""

from zeo_core.commit_marker import MARKER_BYTES, marked
from zeo_core.transaction import TransactionMetadata, extension_bytes
from zeo_core.upstream import UpstreamTransaction

MARKER = bytes(range(MARKER_BYTES))


def test_what_is_said_of_a_transaction_is_passed_on_and_its_marker() -> None:
    extension = marked(extension_bytes({"a": 1}), MARKER)
    passed = UpstreamTransaction(TransactionMetadata(b"user", b"text", extension))
    assert (passed.user, passed.description, passed.marker) == (b"user", b"text", MARKER)
    assert passed.extension == passed.extension_bytes == extension


def test_a_transaction_without_marker() -> None:
    assert UpstreamTransaction(TransactionMetadata()).marker == b""
