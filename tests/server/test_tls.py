import ssl
from pathlib import Path

import pytest

from tests.fixtures_tls import Authority
from zeo_core.errors import ConfigurationError
from zeo_server.tls import TLSFiles


def password() -> str:
    """What `password_function` names below."""
    return "secret"


def test_clients_need_a_certificate_if_there_is_an_authority(authority: Authority) -> None:
    server = str(authority.server)
    assert TLSFiles(server).context().verify_mode is ssl.CERT_NONE
    for authenticate in (str(authority.certificate), str(authority.certificate.parent), "SIGNED", "-"):
        context = TLSFiles(server, authenticate=authenticate).context()
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_key_with_a_password(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    pem = authority.server.read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    path = tmp_path / "key.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    name = f"{__name__}.password"
    assert TLSFiles(str(authority.server), str(path), name).context()
    with pytest.raises(ConfigurationError, match=r"password-function tests\.nowhere\.at_all"):
        TLSFiles(str(authority.server), str(path), "tests.nowhere.at_all").context()


def test_files_that_are_none(authority: Authority, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"certificate .*nonsense\.pem"):
        TLSFiles(str(nonsense)).context()
    with pytest.raises(ConfigurationError, match=r"authenticate .*nonsense\.pem"):
        TLSFiles(str(authority.server), authenticate=str(nonsense)).context()
    with pytest.raises(ConfigurationError, match=r"certificate .*missing: No such file"):
        TLSFiles(str(tmp_path / "missing")).context()
