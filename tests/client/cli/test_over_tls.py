"""The commands on a server that takes connections under TLS only, as docs/howto/tls.md shows them."""

import os
import re
from pathlib import Path

import pytest

import zeo_client
from tests.client.cli.commands import zeo
from tests.fixtures_tls import Authority
from tests.fixtures_zeod import StartZeod, Zeod

HOWTO = Path(__file__).parents[3] / "docs" / "howto" / "tls.md"


@pytest.fixture
def server(start_zeod: StartZeod, tmp_path: Path, authority: Authority) -> Zeod:
    (tmp_path / "zeo.conf").write_text(
        f"<zeo>\naddress 127.0.0.1:0\n<ssl>\ncertificate {authority.server}\n"
        f"authenticate {authority.certificate}\n</ssl>\n</zeo>\n"
        f"<filestorage>\npath {tmp_path}/Data.fs\n</filestorage>\n"
    )
    return start_zeod("-C", "zeo.conf")


def options(authority: Authority) -> list[str]:
    return ["--tls-ca", str(authority.certificate), "--tls-certificate", str(authority.issue("monitor.example.org"))]


def test_the_commands_of_the_howto(server: Zeod, authority: Authority) -> None:
    files = {
        "/etc/zeod/authority.pem": str(authority.certificate),
        "/etc/zeod/monitor.pem": str(authority.issue("monitor.example.org")),
        "db.example.org:9672": "{}:{}".format(*server.address),
    }
    commands = re.findall(r"(?m)^ {4}zeo (.+)$", HOWTO.read_text("utf-8"))
    assert [command.split()[0] for command in commands] == ["status", "ping"]
    for command in commands:
        status, out, error = zeo(*(files.get(word, word) for word in command.split()))
        assert (status, error) == (0, ""), error
        assert out


def test_every_command(server: Zeod, authority: Authority) -> None:
    with zeo_client.open(server.url, ssl=authority.context("alice")) as db, db.transaction("first") as conn:
        conn.root()["x"] = 1
        oid = conn.root()._p_oid
    for command in (
        ("nagios",),
        ("clients",),
        ("top", "-n", 1, "-i", 0.05),
        ("pack", "--days", 1),
        ("undolog",),
        ("history", server.url, f"0x{oid.hex()}"),
    ):
        where = () if server.url in command else (server.url,)
        status, _, error = zeo(*command, *where, *options(authority))
        assert status == 0, (command, error)


def test_a_key_of_its_own_and_a_name(
    start_zeod: StartZeod, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files as variables of the environment, and a server behind a Unix socket."""
    (tmp_path / "zeo.conf").write_text(
        f"<zeo>\naddress ./zeod.sock\n<ssl>\ncertificate {authority.issue('db.example.org')}\n"
        f"authenticate {authority.certificate}\n</ssl>\n</zeo>\n<mappingstorage>\n</mappingstorage>\n"
    )
    server = start_zeod("-C", "zeo.conf")
    whole = authority.issue("monitor.example.org").read_text()
    end = whole.index("-----BEGIN CERTIFICATE")
    (tmp_path / "key.pem").write_text(whole[:end])
    (tmp_path / "certificate.pem").write_text(whole[end:])
    for name, value in (("CA", authority.certificate), ("KEY", "key.pem"), ("CERTIFICATE", "certificate.pem")):
        monkeypatch.setenv(f"ZEO_TLS_{name}", str(tmp_path / value))
    where = os.path.join(tmp_path, str(server.address))
    for command in ("status", "ping"):
        status, _, error = zeo(command, "--timeout", 2, where)
        assert status == 2
        assert "hostname" in error
        status, _, error = zeo(command, "--tls-server-name", "db.example.org", where)
        assert status == 0, error


def test_what_is_wrong_is_one_line(server: Zeod, authority: Authority, tmp_path: Path) -> None:
    trusting = ["--tls-ca", str(authority.certificate)]
    for command, *wrong in (
        ("status",),  # in the clear
        ("status", "--tls"),  # of no authority of this system
        ("status", *trusting),  # without a certificate
        ("ping", *trusting),
        ("status", *options(authority), "--tls-server-name", "other.example.org"),
        ("status", "--tls-ca", str(tmp_path / "missing.pem")),
        ("status", *trusting, "--tls-certificate", str(authority.certificate)),  # without a key
    ):
        status, out, error = zeo(command, "--timeout", 1, *wrong, server.url)
        assert (status, out) == (2, ""), wrong
        assert error.startswith("zeo: ")
        assert len(error.splitlines()) == 1, error
    status, _, error = zeo("ping", "--tls-key", "key.pem", server.url)
    assert status == 2
    assert "--tls-certificate" in error
