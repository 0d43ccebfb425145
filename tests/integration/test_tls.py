"""TLS between real processes: our client and ZEO's with zeod, and what is refused."""

import signal
import ssl
import time
from pathlib import Path

import pytest
import ZEO.ClientStorage

import zeo_client
from tests.fixtures_tls import Authority
from tests.fixtures_zeod import StartZeod, Zeod
from zeo_core.errors import ClientDisconnected

Context = ssl.SSLContext


def start(start_zeod: StartZeod, directory: Path, certificate: Path, authenticate: Path | None) -> Zeod:
    wanted = f"authenticate {authenticate}" if authenticate else ""
    (directory / "zeo.conf").write_text(
        f"<zeo>\naddress 127.0.0.1:0\n<ssl>\ncertificate {certificate}\n{wanted}\n</ssl>\n</zeo>\n"
        f"<filestorage>\npath {directory}/Data.fs\n</filestorage>\n"
    )
    return start_zeod("-C", "zeo.conf")


def storage(server: Zeod, context: Context | None, **options: object) -> zeo_client.ClientStorage:
    return zeo_client.ClientStorage(server.address, ssl=context, wait_timeout=2, **options)  # type: ignore[arg-type]


def test_a_client_with_a_certificate(start_zeod: StartZeod, tmp_path: Path, authority: Authority) -> None:
    server = start(start_zeod, tmp_path, authority.server, authority.certificate)
    context = authority.context("alice")
    with zeo_client.DB(storage(server, context)) as db, zeo_client.DB(storage(server, context)) as other:
        with db.transaction() as conn:
            conn.root()["large"] = "x" * 3_000_000
        with other.transaction() as conn:
            assert conn.root()["large"] == "x" * 3_000_000
            conn.root()["large"] = "small"
        db.storage.ping()  # type: ignore[attr-defined]
        with db.transaction() as conn:
            assert conn.root()["large"] == "small"


def test_zeos_client(start_zeod: StartZeod, tmp_path: Path, authority: Authority) -> None:
    server = start(start_zeod, tmp_path, authority.server, authority.certificate)
    context = authority.context("alice")
    peer = ZEO.ClientStorage.ClientStorage(
        server.address, ssl=context, ssl_server_hostname="127.0.0.1", wait_timeout=10
    )
    try:
        assert peer.new_oid()
    finally:
        peer.close()


@pytest.mark.parametrize("who", ["in the clear", "without a certificate", "of another authority", "no trust"])
def test_who_is_refused(start_zeod: StartZeod, tmp_path: Path, authority: Authority, who: str) -> None:
    server = start(start_zeod, tmp_path, authority.server, authority.certificate)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere)
    contexts: dict[str, Context | None] = {
        "in the clear": None,
        "without a certificate": authority.context(),
        "of another authority": authority.context(),
        "no trust": stranger.context("alice"),
    }
    if who == "of another authority":
        context = contexts[who]
        assert context is not None
        context.load_cert_chain(stranger.issue("mallory.example.org"))
    with pytest.raises(ClientDisconnected):
        storage(server, contexts[who])
    with zeo_client.DB(storage(server, authority.context("alice"))) as db, db.transaction() as conn:
        conn.root()["still"] = "served"


def test_a_server_of_another_name(start_zeod: StartZeod, tmp_path: Path, authority: Authority) -> None:
    server = start(start_zeod, tmp_path, authority.issue("db.example.org"), None)
    with pytest.raises(ClientDisconnected, match=r"127\.0\.0\.1"):
        storage(server, authority.context())
    storage(server, authority.context(), ssl_server_hostname="db.example.org").close()


def test_a_new_certificate_is_used_after_sighup(start_zeod: StartZeod, tmp_path: Path, authority: Authority) -> None:
    server = start(start_zeod, tmp_path, authority.issue("old.example.org"), None)
    context = authority.context()
    with zeo_client.DB(storage(server, context, ssl_server_hostname="old.example.org")) as db:
        new = authority.issue("new.example.org")
        text = (tmp_path / "zeo.conf").read_text().replace("old.example.org", "new.example.org")
        (tmp_path / "zeo.conf").write_text(text)
        assert new.exists()
        server.process.send_signal(signal.SIGHUP)
        deadline_s = time.monotonic() + 30
        while "configuration reloaded" not in server.log_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        storage(server, context, ssl_server_hostname="new.example.org").close()
        with db.transaction() as conn:  # who was connected stays so
            conn.root()["still"] = "connected"
