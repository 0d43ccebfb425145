"""<zeoclient> and <clientstorage> in a zeo.conf: which storage of which server is served on, and how it is reached."""

import socket
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path

import pytest

import zeo_client
import zeo_server
from tests.client.peer import Peer
from tests.fixtures_tls import Authority
from tests.server.in_process import in_process
from tests.server.test_config import ZEO, loaded, refused
from zeo_core.errors import ConfigurationError, ReadOnlyError
from zeo_server.config import StorageSection
from zeo_server.storages.relayed import RelayedStorage
from zeo_server.storages.relayed_blobs import RelayedBlobStorage
from zeo_server.upstream import server_address


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def section(lines: str, kind: str = "zeoclient", name: str = "") -> StorageSection:
    [storage] = loaded(f"{ZEO}<{kind} {name}>\n{lines}\n</{kind}>\n").storages
    return storage


def test_where_a_server_is() -> None:
    assert server_address("db.example.org:9672") == ("db.example.org", 9672)
    assert server_address("[::1]:9672") == ("::1", 9672)
    assert server_address("9672") == ("127.0.0.1", 9672)
    assert server_address("/run/zeod.sock") == "/run/zeod.sock"
    with pytest.raises(ValueError, match="has no port"):
        server_address("db.example.org")


def test_what_is_served_is_said() -> None:
    assert section("server db1:9672\nserver db2:9672\nstorage main").what == "storage main of db1:9672, db2:9672"
    replica = section("server ./zeod.sock\nread-only yes", "clientstorage", "copy")
    assert (replica.name, replica.what) == ("copy", "read-only replica of storage 1 of ./zeod.sock")


@pytest.mark.parametrize("imported", ["ZEO", "ZODB", "zeo_client"])
def test_the_file_of_another_server_may_import_what_is_here_already(imported: str) -> None:
    text = f"%import {imported}\n{ZEO}<clientstorage>\nserver db:9672\n</clientstorage>\n"
    assert [storage.name for storage in loaded(text).storages] == ["1"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("storage 1", "not enough values for 'server'"),
        ("server db", "line 5: 'db' is no address: it has no port"),
        ("server db:9672\nservers db:9672", "line 6: 'servers' is not a known key name"),
        ("server db:9672\nread-only perhaps", "line 6"),
    ],
)
def test_what_cannot_be_meant_is_refused(lines: str, told: str) -> None:
    assert told in refused(f"{ZEO}<zeoclient>\n{lines}\n</zeoclient>\n")


def test_a_replica_is_opened(peer: Peer) -> None:
    with closing(section(f"server {peer.address}\nread-only on\nname copy").open()) as storage:
        assert isinstance(storage, RelayedStorage)
        assert not isinstance(storage, RelayedBlobStorage)
        assert storage.read_only()
        assert storage.name() == "copy"


def test_a_replica_with_blobs_is_opened(peer: Peer) -> None:
    with closing(section(f"server {peer.address}\nread-only on\nblob-dir blobs").open()) as storage:
        assert isinstance(storage, RelayedBlobStorage)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_nobody_there() -> None:
    port = free_port()
    lines = f"server 127.0.0.1:{port}\nwait-timeout 0"
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
        section(lines).open()
    with pytest.raises(ConfigurationError, match=f"nobody answers at 127.0.0.1:{port}"):
        section(lines).probe()
    unhurried = section(f"{lines}\nwait no")
    unhurried.probe()
    unhurried.open().close()


def test_somebody_there(peer: Peer) -> None:
    section(f"server 127.0.0.1:{free_port()}\nserver {peer.address}").probe()


def test_another_storage_than_there_is() -> None:
    with in_process() as server:
        assert isinstance(server.address, tuple)
        lines = f"server 127.0.0.1:{server.address[1]}\nstorage main"
        with pytest.raises(ConfigurationError, match="main"):
            section(lines).open()


def test_a_server_that_may_only_be_read() -> None:
    with in_process(read_only=True) as server:
        assert isinstance(server.address, tuple)
        lines = f"server 127.0.0.1:{server.address[1]}"
        with pytest.raises(ReadOnlyError):
            section(lines).open()
        section(f"{lines}\nread-only yes").open().close()


def test_tls_is_that_of_a_client(authority: Authority) -> None:
    ssl = f"<ssl>\ncertificate {authority.server}\nauthenticate {authority.certificate}\n</ssl>"
    with in_process() as server:
        assert isinstance(server.address, tuple)
        lines = f"server 127.0.0.1:{server.address[1]}\nwait-timeout 1\n{ssl}"
        with pytest.raises(ConfigurationError):  # a server that speaks no TLS
            section(lines).open()


def keys_of(package: object, file: str, kind: str) -> set[str]:
    """Return the keys of a section in the schema or component of a package, with those of what it extends."""
    folder = Path(str(getattr(package, "__file__", ""))).parent
    tree = ElementTree.parse(folder / file)
    found: set[str] = set()
    wanted: str | None = kind
    while wanted is not None:
        [element] = [each for each in tree.iter("sectiontype") if each.get("name") == wanted]
        found |= {key.get("name", "") for tag in ("key", "multikey", "section") for key in element.iter(tag)}
        wanted = element.get("extends")
    return found


@pytest.mark.parametrize("kind", ["clientstorage", "zeoclient"])
def test_the_keys_are_those_of_applications(kind: str) -> None:
    assert keys_of(zeo_server, "schema.xml", kind) == keys_of(zeo_client, "component.xml", kind)
