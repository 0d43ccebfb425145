"""Telling which layout a blob directory has."""

from pathlib import Path

import pytest

from zeo_core.blob_layout import BUSHY, LAWN
from zeo_core.errors import StorageError
from zeo_server.storages.blob_layout import choose


def test_the_marker_decides(tmp_path: Path) -> None:
    (tmp_path / ".layout").write_text("lawn")
    assert choose(str(tmp_path)) is LAWN
    assert choose(str(tmp_path), "lawn") is LAWN


def test_a_directory_that_is_missing_or_empty_gets_the_bushy_layout(tmp_path: Path) -> None:
    assert choose(str(tmp_path / "missing")) is BUSHY
    (tmp_path / ".hidden").touch()
    assert choose(str(tmp_path)) is BUSHY
    assert choose(str(tmp_path), "lawn") is LAWN


def test_a_used_directory_without_marker_has_the_lawn_layout(tmp_path: Path) -> None:
    (tmp_path / "0x01").mkdir()
    assert choose(str(tmp_path)) is LAWN


def test_another_layout_than_the_marked_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".layout").write_text("lawn\n")
    with pytest.raises(StorageError, match=f"{tmp_path}: its layout is lawn, not bushy"):
        choose(str(tmp_path), "bushy")


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".layout").write_text("hedge")
    with pytest.raises(StorageError, match="unknown blob layout 'hedge', it must be one of bushy, lawn"):
        choose(str(tmp_path))
