"""`authority`: a certificate authority for tests, the files of a server, and clients' contexts.

authority.server                 # certificate and key of 127.0.0.1 and localhost, in one PEM file
authority.certificate            # the authority's own, what `authenticate` names
authority.context()              # a client that trusts the authority
authority.context("alice")       # the same, with a certificate of its own
"""

import ssl
from pathlib import Path

import pytest
import trustme

__all__ = ["Authority", "authority"]


class Authority:
    """A certificate authority whose files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self._directory = directory
        self.certificate = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.certificate))
        self.server = self.issue("127.0.0.1", "localhost")

    def issue(self, *names: str, common_name: str | None = None) -> Path:
        """Make a certificate; return a file with it and its key."""
        path = self._directory / f"{common_name or names[0]}.pem"
        made = self._authority.issue_cert(*names, common_name=common_name)
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def context(self, client: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.certificate))
        if client is not None:
            context.load_cert_chain(self.issue(f"{client}.example.org", common_name=client))
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    directory = tmp_path / "authority"
    directory.mkdir()
    return Authority(directory)
