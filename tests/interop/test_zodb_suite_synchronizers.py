"""ZODB's own account of when a storage's sync() is called, told with our DB and MappingStorage."""

import doctest
from pathlib import Path

import ZODB.tests

from tests.interop.zodb_face import Face
from tests.interop.zodb_words import OURS


def test_a_storage_is_synced_when_zodbs_synchronizers_txt_says_so() -> None:
    path = Path(ZODB.tests.__path__[0], "synchronizers.txt")
    with Face(OURS).worn():
        result = doctest.testfile(str(path), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 30
