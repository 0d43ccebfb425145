"""Finding a class by its names."""

import pytest

from zeo_core.classes import import_class


def test_a_class_and_none() -> None:
    assert import_class("collections", "OrderedDict").__name__ == "OrderedDict"
    with pytest.raises(ImportError):
        import_class("no_such_module", "Class")
    with pytest.raises(AttributeError):
        import_class("collections", "NoSuchClass")
