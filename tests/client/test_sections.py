"""What the sections of a configuration open."""

from pathlib import Path
from typing import Any

import pytest
import ZODB.config

from tests.client.objects import Node
from tests.fixtures_tls import Authority
from tests.fixtures_zeod import StartZeod
from zeo_client import config
from zeo_client.broken import find_class
from zeo_client.storage import ClientStorage
from zeo_core.errors import ConfigurationError, ReadOnlyError
from zeo_core.ids import ZERO_TID
from zeo_core.storage import HasBlobs
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage

ASKED: list[str] = []


def class_factory(_connection: object, module: str, name: str) -> Any:
    """Note what is asked for; a configuration below names this function."""
    ASKED.append(name)
    return find_class(module, name)


ALL_KEYS = """
<zodb main>
  <mappingstorage/>
  cache-size 11
  cache-size-bytes 12KB
  large-record-size 1MB
  pool-size 3
  pool-timeout 2m
  historical-pool-size 4
  historical-cache-size 13
  historical-cache-size-bytes 14KB
  historical-timeout 3m
  database-name second
  allow-implicit-cross-references false
</zodb>
"""


def settings(db: Any) -> tuple[Any, ...]:
    return (
        db.getCacheSize(),
        db.getCacheSizeBytes(),
        db.large_record_size,
        db.getPoolSize(),
        db.pool.timeout,
        db.getHistoricalPoolSize(),
        db.getHistoricalCacheSize(),
        db.getHistoricalCacheSizeBytes(),
        db.getHistoricalTimeout(),
        db.database_name,
        db.xrefs,
        db.getName(),
    )


@pytest.mark.parametrize("text", [ALL_KEYS, "<zodb main>\n<mappingstorage/>\n</zodb>"], ids=["all keys", "defaults"])
def test_a_database_is_set_as_zodbs(text: str) -> None:
    ours, theirs = config.databaseFromString(text), ZODB.config.databaseFromString(text)
    # Theirs stands in databases under the same name; the same settings otherwise.
    assert settings(ours) == (*settings(theirs)[:-1], ours.getName())
    ours.close()
    theirs.close()


def test_a_class_factory() -> None:
    db = config.databaseFromString(f"<zodb>\n<mappingstorage/>\nclass-factory {__name__}.class_factory\n</zodb>")
    with db.transaction() as conn:
        conn.root.a = Node()
    conn = db.open()
    conn.cacheMinimize()
    conn.root.a._p_activate()
    assert "Node" in ASKED
    conn.close()
    db.close()


def file_storage(path: Path, *lines: str) -> str:
    return "\n".join(["<filestorage>", f"path {path}", *lines, "</filestorage>"])


def test_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "Data.fs"
    storage: Any = config.storageFromString(
        file_storage(path, "quota 1MB", "pack-gc no", "pack-keep-old no", "packer x")
    )
    assert isinstance(storage, FileStorage)
    assert not isinstance(storage, HasBlobs)
    assert (storage._quota, storage._pack_gc, storage._pack_keep_old) == (1 << 20, False, False)
    assert "packer has no effect" in caplog.text
    storage.close()
    storage = config.storageFromString(file_storage(path, "read-only yes"))
    assert storage.read_only()
    storage.close()
    with pytest.raises(ReadOnlyError):
        config.databaseFromString(f"<zodb>\n{file_storage(path, 'read-only yes')}\n</zodb>")


def test_a_file_with_data_is_never_created_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = f"<zodb>\n{file_storage(tmp_path / 'Data.fs', 'create yes')}\n</zodb>"
    with config.databaseFromString(text) as db, db.transaction() as conn:
        conn.root.a = 1
    assert not caplog.records
    with config.databaseFromString(text) as db, db.transaction() as conn:
        assert conn.root.a == 1
    assert "create has no effect" in caplog.text


@pytest.mark.parametrize("where", ["blobstorage", "filestorage"])
def test_a_directory_for_blobs(where: str, tmp_path: Path) -> None:
    blob_dir = f"blob-dir {tmp_path}/blobs"
    text = file_storage(tmp_path / "Data.fs", *([blob_dir] if where == "filestorage" else []))
    if where == "blobstorage":
        text = f"<blobstorage>\n{blob_dir}\n{text}\n</blobstorage>"
    storage = config.storageFromString(text)
    assert isinstance(storage, HasBlobs)
    assert (tmp_path / "blobs").is_dir()
    storage.close()


def test_blobs_beside_what_is_no_file(tmp_path: Path) -> None:
    for inner in ("<mappingstorage/>", file_storage(tmp_path / "Data.fs", f"blob-dir {tmp_path}/blobs")):
        with pytest.raises(ConfigurationError, match="<blobstorage>: only a <filestorage>"):
            config.storageFromString(f"<blobstorage>\nblob-dir {tmp_path}/b\n{inner}\n</blobstorage>")


def demo(*parts: str) -> str:
    return "\n".join(["<demostorage>", "name play", *parts, "</demostorage>"])


def test_a_playground(tmp_path: Path) -> None:
    base = file_storage(tmp_path / "base.fs")
    changes = file_storage(tmp_path / "changes.fs").replace("<filestorage>", "<filestorage changes>")
    storage: Any = config.storageFromString(demo(base, changes))
    assert isinstance(storage, DemoStorage)
    assert storage.name() == "play"
    assert (storage.base.name(), storage.changes.name()) == (str(tmp_path / "base.fs"), str(tmp_path / "changes.fs"))
    storage.close()
    config.storageFromString(demo()).close()


def test_a_playground_with_too_many_parts() -> None:
    with pytest.raises(ConfigurationError, match="two storages for the base"):
        config.storageFromString(demo("<mappingstorage/>", "<mappingstorage other/>"))


def test_a_playground_that_cannot_be_opened_leaves_its_base_closed(tmp_path: Path) -> None:
    base = file_storage(tmp_path / "base.fs")
    with pytest.raises(ConfigurationError, match="only a <filestorage>"):
        config.storageFromString(
            demo(base, f"<blobstorage changes>\nblob-dir {tmp_path}\n<mappingstorage/>\n</blobstorage>")
        )
    FileStorage(tmp_path / "base.fs").close()


def test_a_connection_under_tls(start_zeod: StartZeod, tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "zeo.conf").write_text(
        f"<zeo>\naddress 127.0.0.1:0\n<ssl>\ncertificate {authority.server}\n"
        f"authenticate {authority.certificate}\n</ssl>\n</zeo>\n<mappingstorage>\n</mappingstorage>\n"
    )
    server = start_zeod("-C", "zeo.conf")
    client = authority.issue("client.example.org")
    ssl = f"<ssl>\ncertificate {client}\nauthenticate {authority.certificate}\nserver-hostname localhost\n</ssl>"
    address = "{}:{}".format(*server.address)
    storage = config.storageFromString(f"<clientstorage>\nserver {address}\n{ssl}\n</clientstorage>")
    assert storage.last_tid() == ZERO_TID
    storage.close()
    with pytest.raises(ConfigurationError, match="/c"):
        config.storageFromString(f"<zeoclient>\nserver {address}\n<ssl>\ncertificate /c\n</ssl>\n</zeoclient>")


@pytest.mark.parametrize("section", ["zeoclient", "clientstorage"])
def test_several_servers(start_zeod: StartZeod, section: str) -> None:
    address = "{}:{}".format(*start_zeod("-f", "Data.fs").address)
    text = f"server ./nothing.sock\nserver {address}\nread-only-fallback true\nreconnect-timeout 3"
    text += "\nstaging-memory-size 2MB"
    storage = config.storageFromString(f"<{section}>\n{text}\n</{section}>")
    assert isinstance(storage, ClientStorage)
    assert not storage.read_only()
    assert storage._supervisor._outage_s == 3
    assert storage._transactions._memory_bytes == 2 << 20
    storage.close()


def test_what_zeos_section_has_beyond_that(start_zeod: StartZeod, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "zeo_client.client_options")
    address = "{}:{}".format(*start_zeod("-f", "Data.fs").address)
    polls = "min-disconnect-poll 1\nmax-disconnect-poll 2"
    obsolete = "drop-cache-rather-verify on\nusername u\npassword p\nrealm r"
    config.storageFromString(f"<zeoclient>\nserver {address}\n{polls}\n{obsolete}\n</zeoclient>").close()
    [record] = caplog.records
    assert record.getMessage() == f"{address}/1: drop_cache_rather_verify, username, password, realm: no effect"


@pytest.mark.parametrize(
    ("section", "keys", "directory"),
    [
        ("zeoclient", "cache-path {}/objects", "objects.zeodcache"),
        ("clientstorage", "cache-path {}/objects", "objects.zeodcache"),
        ("zeoclient", "client app\nvar {}", "app-1.zeodcache"),
    ],
)
def test_a_cache_on_disk(start_zeod: StartZeod, tmp_path: Path, section: str, keys: str, directory: str) -> None:
    address = "{}:{}".format(*start_zeod("-f", "Data.fs").address)
    text = f"server {address}\n{keys.format(tmp_path)}\ncache-size 1MB\nmemory-cache-size 10KB"
    storage = config.storageFromString(f"<{section}>\n{text}\n</{section}>")
    assert isinstance(storage, ClientStorage)
    stats = storage.cache_stats()
    assert (stats["max_bytes"], stats["disk_max_bytes"]) == (10 * 1024, 1024**2)
    storage.close()
    assert (tmp_path / directory / "1.cache").exists()
