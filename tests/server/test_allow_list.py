"""Which classes' code the server may run."""

import importlib
import sys

import pytest
from BTrees.Length import Length
from BTrees.OOBTree import OOBucket

from zeo_core.protobuf_resolve import MergeRule
from zeo_server.allow_list import AllowList, check_names


def test_those_of_btrees_are_on_it_by_default() -> None:
    listed = AllowList()
    assert listed.load("BTrees.Length", "Length") is Length
    assert listed.load("BTrees.OOBTree", "OOBucket") is OOBucket
    modules = [name.removeprefix("BTrees.") for name in sys.modules if name.startswith("BTrees.")]
    families = [name for name in modules if name.endswith("BTree") and name[0] != "_"]
    assert len(families) > 10
    for family in families:
        module = importlib.import_module(f"BTrees.{family}")
        for name in module.__all__:
            if name.endswith(("Bucket", "BTree", "Set")):
                assert listed.allows(f"BTrees.{family}.{name}")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("BTrees.check", "check"),
        ("BTrees.OOBTree", "Persistent"),  # imported there from elsewhere
        ("BTrees.OOBTree", "__doc__"),
        ("BTrees.OOBTree", "OOBTree.__class__"),
        ("BTrees", "OOBTree"),
        ("", "eval"),
    ],
)
def test_nothing_else_is_given_out(module: str, name: str) -> None:
    with pytest.raises((ImportError, AttributeError)):
        AllowList().load(module, name)


def test_a_list_of_ones_own() -> None:
    listed = AllowList(["collections.OrderedDict", "decimal.*"])
    assert listed.allows("collections.OrderedDict")
    assert not listed.allows("collections.Counter")
    assert listed.allows("decimal.Decimal")
    assert not listed.allows("decimal.inner.Decimal")
    assert not listed.allows("BTrees.Length.Length")
    assert not AllowList([]).allows("BTrees.Length.Length")


@pytest.mark.parametrize("name", ["", "Length", "*", ".*", "a..b", "a b.c", "BTrees.*.Length", "1.2"])
def test_what_is_no_name_of_a_class(name: str) -> None:
    with pytest.raises(ValueError, match="is no dotted name"):
        check_names([name])


def test_a_rule_for_a_class_does_not_allow_to_import_it() -> None:
    rule = MergeRule(object)
    listed = AllowList([], {"decimal.Decimal": rule})
    assert listed.merges("decimal.Decimal")
    assert not listed.merges("decimal.Context")
    assert not listed.allows("decimal.Decimal")
    assert listed.rule("decimal", "Decimal") is rule
    assert listed.rule("decimal", "Context") is None
    with pytest.raises(ImportError, match=r"decimal\.Decimal is not on the list"):
        listed.load("decimal", "Decimal")
    assert AllowList().rule("BTrees.Length", "Length") is None
