"""Databases and storages from configuration files."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import ZConfig
import ZODB.config

import zeo_client
from tests.fixtures_zeod import StartZeod
from zeo_client import config
from zeo_core.errors import ClientDisconnected, ConfigurationError
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

TWO = """
<zodb Main>
  <mappingstorage/>
</zodb>
<zodb>
  database-name second
  <demostorage/>
</zodb>
"""


def close_all(db: zeo_client.DB) -> None:
    for each in list(db.databases.values()):
        each.close()


def test_the_first_of_several_databases() -> None:
    db = config.databaseFromString(TWO)
    assert db.database_name == "main"
    assert sorted(db.databases) == ["main", "second"]
    assert isinstance(db.databases["second"].storage, DemoStorage)
    conn = db.open()
    assert conn.get_connection("second").db() is db.databases["second"]
    conn.close()
    close_all(db)


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "app.conf"
    path.write_text(TWO, "utf-8")
    with path.open() as file:
        close_all(config.databaseFromFile(file))
    close_all(config.databaseFromURL(path))
    close_all(config.databaseFromURL(f"file://{path}"))
    close_all(zeo_client.database_from_url(path))
    close_all(zeo_client.database_from_string(TWO))
    close_all(zeo_client.database_from_file(StringIO(TWO)))


def test_what_was_opened_is_closed_if_another_cannot_be(tmp_path: Path) -> None:
    text = (
        f"<zodb>\n<filestorage>\npath {tmp_path}/Data.fs\n</filestorage>\n</zodb>\n<zodb>\n<mappingstorage/>\n</zodb>"
    )
    with pytest.raises(ValueError, match="database_name '' already"):
        config.databaseFromString(text)
    FileStorage(tmp_path / "Data.fs").close()  # it is not in use


def test_storages(tmp_path: Path) -> None:
    text = "<mappingstorage>\nname scratch\n</mappingstorage>"
    path = tmp_path / "storage.conf"
    path.write_text(text, "utf-8")
    assert config.storageFromString(text).name() == "scratch"
    assert config.storageFromFile(StringIO(text)).name() == "scratch"
    assert isinstance(config.storageFromURL(path), MappingStorage)


def test_sections_of_both_kinds(tmp_path: Path) -> None:
    path = tmp_path / "app.conf"
    path.write_text(TWO + "<mappingstorage scratch/>", "utf-8")
    assert [section.name for section in config.sections_from_url(path)] == ["main", None, "scratch"]


def test_files_written_for_zeo_and_zodb_import_nothing() -> None:
    text = "%import ZEO\n%import ZODB\n%import zeo_client\n<mappingstorage/>"
    assert isinstance(config.storageFromString(text), MappingStorage)
    with pytest.raises(ConfigurationError, match="no_such_package"):
        config.storageFromString("%import no_such_package\n<mappingstorage/>")


def test_an_application_imports_the_sections_into_its_schema() -> None:
    schema = """
        <schema>
          <import package="zeo_client"/>
          <multisection type="ZODB.database" name="*" attribute="databases"/>
          <key name="colour"/>
        </schema>"""
    loaded, _ = ZConfig.loadConfigFile(ZConfig.loadSchemaFile(StringIO(schema)), StringIO(TWO + "colour blue"))
    assert loaded.colour == "blue"
    databases: dict[str, Any] = {}
    db = loaded.databases[0].open(databases=databases)
    assert databases == {"main": db}
    db.close()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<zodb>\ncash 3\n</zodb>", "line 2: 'cash' is not a known key name"),
        ("<zodb>\n</zodb>", "line 2: "),
        ("", "database"),
        ("<zodb>\ncache-size many\n<mappingstorage/>\n</zodb>", "line 2: "),
        ("<zodb>\nclass-factory no.such.name\n<mappingstorage/>\n</zodb>", "'no.such.name' cannot be imported"),
    ],
)
def test_what_cannot_be_understood_is_named(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "app.conf"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as info:
        config.databaseFromURL(path)
    assert str(info.value).startswith(str(path))
    assert reason in str(info.value)
    with pytest.raises(ConfigurationError):
        config.databaseFromString(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no/such/file"):
        config.databaseFromURL("/no/such/file")


@pytest.mark.parametrize("section", ["zeoclient", "clientstorage"])
def test_a_database_on_a_server(section: str, start_zeod: StartZeod, tmp_path: Path) -> None:
    address = start_zeod("-f", "served.fs").url.removeprefix("zeo://")
    text = f"%import ZEO\n<zodb main>\n<{section}>\nserver {address}\nclient-label me\n</{section}>\n</zodb>"
    db = config.databaseFromString(text)
    with db.transaction() as conn:
        conn.root.a = 1
    db.close()
    theirs = ZODB.config.databaseFromString(text)
    conn = theirs.open()
    assert conn.root.a == 1
    conn.close()
    theirs.close()


def test_a_server_that_is_away() -> None:
    text = "<zodb>\n<clientstorage>\nserver 127.0.0.1:1\nwait-timeout 0\n</clientstorage>\n</zodb>"
    with pytest.raises(ClientDisconnected, match=r"127\.0\.0\.1:1"):
        config.databaseFromString(text)


def test_the_keys_are_zodbs() -> None:
    """Every key of ZODB's and ZEO's sections is one of ours, and what it says is understood as they do."""
    theirs = ZConfig.loadSchemaFile(
        StringIO('<schema><import package="ZEO"/><section type="ZODB.database" name="*" attribute="a"/></schema>')
    )
    ours = config.getDbSchema()
    names = "zodb zeoclient clientstorage filestorage mappingstorage demostorage blobstorage"
    for section in names.split():
        keys = {name for name, _ in theirs.gettype(section) if name}
        known = {name for name, _ in ours.gettype(section) if name}
        assert keys <= known, section
