"""ZODB's own tests of blob storages, from the installed ZODB, made to run on storages of ours."""

import doctest
import os
import unittest
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ZODB.tests import testblob

__all__ = ["blob_cases", "run_case"]

_EXAMPLES = {
    # The text of an example -> what is run in its place.
    r"blob_storage.storeBlob(new_oid, '\0'*8": r"blob_storage.storeBlob(new_oid, b'\0'*8",  # a serial is bytes
}

_AS_ROOT = "open(blob.committed(), 'w')"
"""An example that expects a PermissionError, which root does not get: the file would be emptied."""


def blob_cases(
    name: str, factory: Callable[[str, str], Any], left_out: Collection[str], tests: Any = testblob, **kinds: bool
) -> list[unittest.TestCase]:
    """Return ZODB's tests of what `factory(name, blob_dir)` makes, but for those that are left out.

    They are those of the module `tests`, which may be ZODB's as it is under a face.
    """
    return _chosen(tests.storage_reusable_suite(name, factory, **kinds), left_out)


def _chosen(suite: unittest.TestSuite, left_out: Collection[str]) -> list[unittest.TestCase]:
    """Return the cases of a suite but for those that are left out, by the last part of their names or by class."""
    return [
        case
        for case in _cases(suite)
        if case.id().rpartition(".")[2] not in left_out and type(case).__name__ not in left_out
    ]


def run_case(case: unittest.TestCase, translation: Mapping[str, str] | None = None) -> None:
    """Run one; AssertionError if it does not pass. `translation` is applied to a doctest's examples and errors."""
    _adapt(case, {**_EXAMPLES, **(translation or {})})
    layer = testblob.storage_reusable_suite("Layer", lambda *_: None).layer
    result = unittest.TestResult()
    layer.testSetUp()
    try:
        case.run(result)
    finally:
        layer.testTearDown()
    assert result.testsRun == 1
    assert not result.skipped
    assert result.wasSuccessful(), "\n".join(text for _case, text in result.errors + result.failures)


def _cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _cases(test)
        else:
            yield test


def _adapt(case: Any, translation: Mapping[str, str]) -> None:
    """Let a doctest's errors be in another module than ZODB's, and mend what only ZODB's storage lets pass."""
    if not isinstance(case, doctest.DocTestCase):
        return
    case._dt_optionflags |= doctest.IGNORE_EXCEPTION_DETAIL  # type: ignore[attr-defined]
    examples = case._dt_test.examples  # type: ignore[attr-defined]
    for example in examples:
        for text, instead in translation.items():
            example.source = example.source.replace(text, instead)
            if example.exc_msg is not None:
                example.exc_msg = example.exc_msg.replace(text, instead)
    if os.geteuid() == 0:
        examples[:] = [example for example in examples if _AS_ROOT not in example.source]
