"""The root's convenience."""

import pytest

from zeo_client.root import Root


def test_attributes_are_items() -> None:
    mapping = {"a": 1}
    root = Root(mapping)
    root.b = 2
    del root.a
    assert root() is mapping
    assert mapping == {"b": 2}
    assert root.b == 2
    assert dir(root) == ["b"]


def test_what_is_missing_is_named() -> None:
    root = Root({})
    with pytest.raises(AttributeError, match="root has no 'users'"):
        _ = root.users
    with pytest.raises(AttributeError, match="root has no 'users'"):
        del root.users


def test_repr_is_short() -> None:
    assert repr(Root({"b": 1, "a": 2})) == "<root: a b>"
    assert repr(Root({})) == "<root: >"
    long = repr(Root({f"name{number:02}": 1 for number in range(50)}))
    assert len(long) <= 70
    assert long.endswith(" ...>")
