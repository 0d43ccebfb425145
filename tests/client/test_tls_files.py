import ssl
from pathlib import Path

import pytest

from tests.fixtures_tls import Authority
from zeo_client.tls_files import client_context
from zeo_core.errors import ConfigurationError


def test_servers_are_always_looked_at(authority: Authority) -> None:
    for authenticate in (None, str(authority.certificate), str(authority.certificate.parent)):
        context = client_context(authenticate=authenticate)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
    assert not client_context(check_hostname=False).check_hostname


def test_only_the_named_authorities_are_trusted(authority: Authority) -> None:
    subjects = client_context(authenticate=str(authority.certificate)).get_ca_certs()
    assert len(subjects) == 1


def test_a_certificate_of_ones_own(authority: Authority) -> None:
    assert client_context(str(authority.server))


def test_files_that_are_none(authority: Authority, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"certificate .*nonsense\.pem"):
        client_context(str(nonsense))
    with pytest.raises(ConfigurationError, match=r"authenticate .*nonsense\.pem"):
        client_context(authenticate=str(nonsense))
    with pytest.raises(ConfigurationError, match=r"password-function nothing"):
        client_context(str(authority.server), None, "nothing")
