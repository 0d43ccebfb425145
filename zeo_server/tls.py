"""TLS on the server's side: what an <ssl> section of zeo.conf says, with ZEO's keys and their meaning."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from zeo_core.errors import ConfigurationError

__all__ = ["SIGNED", "TLSFiles"]

SIGNED = ("SIGNED", "-")
"""Values of `authenticate` that stand for the certificate authorities that this system trusts."""


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """The files of a server's certificate and of those it trusts.

    `certificate` may have the key in it, otherwise `key` has it. `password_function` is the dotted name of a function
    that returns the key's password. `authenticate` is a file or a directory of certificates of clients or of their
    authorities, or SIGNED; if it is None, clients need no certificate.
    """

    certificate: str
    key: str | None = None
    password_function: str | None = None
    authenticate: str | None = None
    check_hostname: bool = True  # this and the next are for clients
    server_hostname: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context for a listening socket; ConfigurationError that names the file at fault."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.load(context)
        if self.authenticate is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            if context.cert_store_stats()["crl"]:
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Load the files into a context, also into one in use: connections that come from then on use them.

        Trust that was given once is not taken away by that; only a restart does.
        """
        try:
            context.load_cert_chain(self.certificate, self.key, self._password())
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            raise ConfigurationError(f"<ssl>: certificate {self.certificate}: {_reason(error)}") from error
        if self.authenticate is None:
            return
        try:
            if self.authenticate in SIGNED:
                context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
            elif os.path.isdir(self.authenticate):
                context.load_verify_locations(capath=self.authenticate)
            else:
                context.load_verify_locations(cafile=self.authenticate)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"<ssl>: authenticate {self.authenticate}: {_reason(error)}") from error

    def _password(self) -> Callable[[], str | bytes] | None:
        if self.password_function is None:
            return None
        module, _, name = self.password_function.rpartition(".")
        try:
            function: Callable[[], str | bytes] = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"<ssl>: password-function {self.password_function}: {error}") from error
        return function


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
