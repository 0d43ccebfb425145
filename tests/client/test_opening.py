"""From a place's name to a database."""

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

import zeo_client
import zeo_client.storage
from zeo_core.errors import ConfigurationError, FileLockedError, StorageClosedError
from zeo_core.ids import ROOT_OID
from zeo_server.storages.mapping import MappingStorage


def check_memory_of(where: str | Path) -> None:
    with zeo_client.open(where) as db, db.transaction() as conn:
        conn.root.a = 1
    with zeo_client.open(where) as db, db.transaction() as conn:
        assert conn.root.a == 1


def test_a_file_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_memory_of("Data.fs")
    check_memory_of(tmp_path / "Data.fs")
    check_memory_of(f"file://{tmp_path}/Data.fs")
    check_memory_of(f"file://{tmp_path}/with%20space.fs")
    assert (tmp_path / "with space.fs").exists()


def test_a_file_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    check_memory_of("~/Data.fs")
    assert (tmp_path / "Data.fs").exists()


def test_memory() -> None:
    with zeo_client.open("memory://") as one, zeo_client.open("memory://scratch") as two:
        assert isinstance(one.storage, MappingStorage)
        assert two.storage.name() == "scratch"


def test_closing_the_database_closes_the_file(tmp_path: Path) -> None:
    db = zeo_client.open(tmp_path / "Data.fs")
    with pytest.raises(FileLockedError):
        zeo_client.open(tmp_path / "Data.fs")
    db.close()
    with pytest.raises(StorageClosedError):
        db.storage.load_before(ROOT_OID, b"\x7f" * 8)
    zeo_client.open(tmp_path / "Data.fs").close()


def test_a_database_that_cannot_be_used_leaves_no_storage_open(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        zeo_client.open(tmp_path / "Data.fs", cache_size="many")
    zeo_client.open(tmp_path / "Data.fs").close()


def test_options_go_where_they_are_known(tmp_path: Path) -> None:
    zeo_client.open(tmp_path / "Data.fs").close()
    with zeo_client.open(tmp_path / "Data.fs", read_only=True, database_name="mine", cache_size=7) as db:
        assert db.storage.read_only()
        assert db.database_name == "mine"
        assert db.open()._cache.cache_size == 7
    with pytest.raises(TypeError, match="no_such_option"):
        zeo_client.open(tmp_path / "Data.fs", no_such_option=1)


class Recorded(Exception):
    """Carries what ClientStorage would have been called with."""


@pytest.fixture
def _recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is needed to see what would be connected to."""

    def client_storage(*args: Any, **options: Any) -> None:
        raise Recorded(*args, options)

    monkeypatch.setattr(zeo_client.storage, "ClientStorage", client_storage)


@pytest.mark.usefixtures("_recording")
@pytest.mark.parametrize(
    ("where", "address", "storage"),
    [
        ("zeo://db1:9000", ("db1", 9000), "1"),
        ("zeo://db1", ("db1", 9672), "1"),
        ("zeo://db1:9000/", ("db1", 9000), "1"),
        ("zeo://db1:9000/main%20one", ("db1", 9000), "main one"),
        ("zeo://127.0.0.1:9000/temp", ("127.0.0.1", 9000), "temp"),
        ("zeo://[::1]:9000/temp", ("::1", 9000), "temp"),
        ("zeo:///run/zeod.sock", "/run/zeod.sock", "1"),
        ("zeo:///run/zeod.sock?storage=temp", "/run/zeod.sock", "temp"),
    ],
)
def test_servers(where: str, address: object, storage: str) -> None:
    with pytest.raises(Recorded) as info:
        zeo_client.open(where, pool_size=3, wait_timeout=7, storage_options={"cache_size": 9})
    assert info.value.args == (address, {"storage": storage, "wait_timeout": 7, "cache_size": 9})


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("http://db1:9000", "neither zeo://"),
        ("zeo://", "neither a host nor a socket"),
        ("zeo:///", "neither a host nor a socket"),
        ("zeo://:9000", "names no host"),
        ("zeo://db1:port", "'port'"),
        ("zeo://db1:99999", "0-65535"),
        ("file://", "names no file"),
        ("", "names no file"),
    ],
)
def test_places_that_cannot_be_understood_are_named(where: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot open") as info:
        zeo_client.open(where)
    assert repr(where) in str(info.value)
    assert reason in str(info.value)


def test_a_storage_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = importlib.metadata.EntryPoints()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: empty)
    with pytest.raises(ConfigurationError, match="no installed package offers 'filestorage'"):
        zeo_client.open("Data.fs")
