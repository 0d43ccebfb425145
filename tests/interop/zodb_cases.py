"""ZODB's test cases, one by one: found through its modules' own suites, run under a face.

A doctest is one case although it may be pages long. So that a line of it that asks for what only ZODB has (a private
attribute, the text of a message) does not cost the rest, single examples may be left out, or translated. What is raised
is always compared by its class, never by its text.
"""

import doctest
import re
import unittest
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.interop.zodb_face import Face, Translation
from zeo_core import errors

__all__ = ["Case", "Terms", "cases"]


@dataclass(frozen=True)
class Terms:
    """What is different in a module of tests for us."""

    left_out: Translation = field(default_factory=dict)
    """A case's name -> why it cannot pass with our objects."""

    examples: Translation = field(default_factory=dict)
    """A part of a doctest example's source -> why it is left out."""

    translated: Translation = field(default_factory=dict)
    """ZODB's private names, in source -> ours."""


class _Checker(doctest.OutputChecker):
    """Takes one of our errors for each of its base classes: an UnpicklableError where a TypeError is wanted."""

    def __init__(self, checker: doctest.OutputChecker | None) -> None:
        self._checker = checker or doctest.OutputChecker()

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if self._checker.check_output(want, got, optionflags):
            return True
        cls = vars(errors).get(got.strip())
        return isinstance(cls, type) and want.strip() in [base.__name__ for base in cls.__mro__]

    def output_difference(self, example: doctest.Example, got: str, optionflags: int) -> str:
        return self._checker.output_difference(example, got, optionflags)


class Case:
    """One case, under the layer of its suite: what zope.testrunner would set up around it."""

    def __init__(self, test: unittest.TestCase, layer: Any) -> None:
        self._test = test
        self._layer = layer
        self.sources: list[str] = []
        """The sources of a doctest's examples, as they were."""

    def id(self) -> str:
        return re.sub(r"^.*/|^ZODB\.tests\.\w+\.", "", self._test.id())

    def adapt(self, terms: Terms) -> None:
        """Apply the terms to a doctest."""
        test = getattr(self._test, "_dt_test", None)
        if not isinstance(test, doctest.DocTest):
            return
        vars(self._test)["_dt_optionflags"] |= doctest.IGNORE_EXCEPTION_DETAIL
        vars(self._test)["_dt_checker"] = _Checker(vars(self._test)["_dt_checker"])
        self.sources = [example.source for example in test.examples]
        test.examples = [
            example for example in test.examples if not any(part in example.source for part in terms.examples)
        ]
        if not str(test.filename).endswith(".py"):  # those came with the module's source, which is translated already
            for example in test.examples:
                for theirs, ours in terms.translated.items():
                    example.source = example.source.replace(theirs, ours)
                    example.want = example.want.replace(theirs, ours)

    def run(self, face: Face) -> str:
        """Run it, once; return what went wrong, an empty text if nothing did."""
        result = unittest.TestResult()
        with face.worn():
            if self._layer is not None:
                self._layer.testSetUp()
            try:
                self._test.run(result)
            finally:
                if self._layer is not None:
                    self._layer.testTearDown()
                vars(self._test).clear()  # what it left open goes now, and not at the end of all tests
        skipped = [f"skipped: {reason}" for _, reason in result.skipped]
        return "\n".join([*(text for _, text in [*result.errors, *result.failures]), *skipped])


def cases(face: Face, name: str, terms: Terms) -> Iterator[tuple[str, Case]]:
    """Walk the cases of a test module: (its name, unique in the module; the case), those left out as well."""
    module = face.test_module(name, terms.translated)
    with face.worn():
        if hasattr(module, "test_suite"):
            suite = module.test_suite()
        else:
            suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    seen: dict[str, int] = {}
    for case in _flat(suite):
        case.adapt(terms)
        shown = case.id()
        seen[shown] = seen.get(shown, 0) + 1
        yield shown if seen[shown] == 1 else f"{shown} ({seen[shown]})", case


def _flat(suite: unittest.TestSuite, layer: Any = None) -> Iterator[Case]:
    layer = getattr(suite, "layer", layer)
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _flat(each, layer)
        else:
            yield Case(each, layer)
