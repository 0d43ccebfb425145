"""ZODB's own tests of classes that are persistent objects, from the installed ZODB, with our DB and metaclass."""

import doctest
import unittest
from collections.abc import Iterator
from typing import Any

import pytest
import transaction

from tests.interop.zodb_face import Face
from tests.interop.zodb_words import OURS
from zeo_client.db import DB
from zeo_client.persistent_class import PersistentMetaClass
from zeo_server.storages.mapping import MappingStorage

FACE = Face({**OURS, "persistentclass": {"PersistentMetaClass": PersistentMetaClass}})


def new_database() -> DB:
    """Make a database in memory."""
    return DB(MappingStorage())


TESTS: Any = FACE.test_module("testpersistentclass", {"ZODB.tests.util.DB()": "new_database()"})
TESTS.new_database = new_database


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def all_cases() -> list[Any]:
    with FACE.worn():
        return list(cases(TESTS.test_suite()))


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id().rpartition("/")[2])
def test_zodbs_own_tests_pass(case: Any) -> None:
    case._dt_optionflags |= doctest.IGNORE_EXCEPTION_DETAIL
    result = unittest.TestResult()
    with FACE.worn():
        case.run(result)
    transaction.abort()
    assert result.testsRun == 1
    assert result.wasSuccessful(), "\n".join(text for _case, text in result.errors + result.failures)
