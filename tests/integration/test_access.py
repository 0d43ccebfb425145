"""Roles between real processes: given by certificates over TLS and to users of a Unix socket, and reloaded."""

import os
import signal
import time
from pathlib import Path

import pytest
import ZEO.ClientStorage
import ZODB.POSException

import zeo_client
from tests.fixtures_tls import Authority
from tests.fixtures_zeod import StartZeod, Zeod
from zeo_core.errors import AccessDeniedError, ReadOnlyError, StorageError

PEER_TIMEOUT_S = 10


def configure(directory: Path, address: str, access: str, tls: str = "") -> None:
    (directory / "zeo.conf").write_text(
        f"<zeo>\naddress {address}\n{tls}\n<access>\n{access}\n</access>\n</zeo>\n"
        f"<filestorage main>\npath {directory}/Data.fs\n</filestorage>\n"
        f"<mappingstorage scratch>\n</mappingstorage>\n"
    )


RULES = """
    certificate admin.example.org admin
    certificate *.app.example.org writer main
    certificate "Alice"           reader main
"""


@pytest.fixture
def server(start_zeod: StartZeod, tmp_path: Path, authority: Authority) -> Zeod:
    """A server that knows clients by their certificates."""
    tls = f"<ssl>\ncertificate {authority.server}\nauthenticate {authority.certificate}\n</ssl>"
    configure(tmp_path, "127.0.0.1:0", RULES, tls)
    return start_zeod("-C", "zeo.conf")


class Clients:
    """Opens storages with certificates of one authority."""

    def __init__(self, server: Zeod, authority: Authority) -> None:
        self.server, self._authority = server, authority

    def storage(
        self, name: str, storage: str = "main", *, common_name: str | None = None, **options: object
    ) -> zeo_client.ClientStorage:
        context = self._authority.context()
        context.load_cert_chain(self._authority.issue(name, common_name=common_name))
        return zeo_client.ClientStorage(
            self.server.address,
            storage=storage,
            ssl=context,
            wait_timeout=5,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture
def clients(server: Zeod, authority: Authority) -> Clients:
    return Clients(server, authority)


def test_certificates_give_roles(clients: Clients) -> None:
    with zeo_client.DB(clients.storage("one.app.example.org")) as db:
        with db.transaction() as conn:
            conn.root()["by"] = "a writer"
        with pytest.raises(AccessDeniedError, match="pack needs the role admin"):
            db.pack()
    admin = clients.storage("admin.example.org")
    with zeo_client.DB(admin) as db:
        db.undo(db.undoInfo()[0]["id"])
        db.pack()
    with pytest.raises(ReadOnlyError):
        clients.storage("her.example.org", common_name="Alice")
    reader = clients.storage("her.example.org", common_name="Alice", read_only=True)
    with zeo_client.DB(reader) as db, db.transaction() as conn:
        assert conn.root() is not None
    with pytest.raises(AccessDeniedError, match="no role for storage scratch"):
        clients.storage("one.app.example.org", "scratch")
    with pytest.raises(AccessDeniedError, match="no role for storage main"):
        clients.storage("stranger.example.org")
    assert "register refused: no role for storage scratch" in clients.server.log_text()


def test_zeos_client_has_roles_too(clients: Clients, authority: Authority) -> None:
    def peer(name: str, **options: object) -> ZEO.ClientStorage.ClientStorage:
        context = authority.context()
        context.load_cert_chain(authority.issue(name, common_name=name.split(".")[0].capitalize()))
        return ZEO.ClientStorage.ClientStorage(
            clients.server.address,
            storage="main",
            ssl=context,
            ssl_server_hostname="127.0.0.1",
            wait_timeout=PEER_TIMEOUT_S,
            **options,
        )

    writer = peer("two.app.example.org")
    try:
        assert writer.new_oid()
        with pytest.raises(ZODB.POSException.StorageError, match="pack needs the role admin"):
            writer.pack(time.time(), wait=True)
    finally:
        writer.close()
    reader = peer("alice.example.org", read_only_fallback=True)
    try:
        assert reader.is_read_only()
    finally:
        reader.close()


def test_users_of_a_unix_socket_and_new_rules_and_limits(start_zeod: StartZeod, tmp_path: Path) -> None:
    configure(tmp_path, "./zeod.sock", f"unix-user {os.getuid()} writer main")
    server = start_zeod("-C", "zeo.conf")
    with zeo_client.DB(zeo_client.ClientStorage(server.address, storage="main")) as db:
        configure(tmp_path, "./zeod.sock", f"unix-user {os.getuid()} reader main", "max-transaction-size 100KB")
        server.process.send_signal(signal.SIGHUP)
        deadline_s = time.monotonic() + 30
        while "configuration reloaded" not in server.log_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        with pytest.raises(ReadOnlyError):
            zeo_client.ClientStorage(server.address, storage="main", wait_timeout=5)
        with db.transaction() as conn:  # who was connected stays what it was
            conn.root()["still"] = "a writer"
        with pytest.raises(StorageError, match="the transaction is larger than 102400 bytes"), db.transaction() as conn:
            conn.root()["large"] = "x" * 200_000
