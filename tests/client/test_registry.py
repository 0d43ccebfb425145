"""The storages that are installed."""

import importlib.metadata

import pytest

from zeo_client.registry import STORAGES, storage_factory
from zeo_core.errors import ConfigurationError
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


def test_storages_go_by_their_names_in_a_configuration() -> None:
    assert storage_factory("filestorage") is FileStorage
    assert storage_factory("mappingstorage") is MappingStorage
    assert storage_factory("demostorage") is DemoStorage


def test_a_storage_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=f"no installed package offers 'tapestorage'.*{STORAGES}"):
        storage_factory("tapestorage")
    empty = importlib.metadata.EntryPoints()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: empty)
    with pytest.raises(ConfigurationError, match="'filestorage'"):
        storage_factory("filestorage")
