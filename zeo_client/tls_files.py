"""A client's TLS context from files, as an <ssl> section names them, with ZEO's keys and their meaning."""

import os
import ssl
from collections.abc import Callable
from importlib import import_module

from zeo_core.errors import ConfigurationError

__all__ = ["client_context"]


def client_context(
    certificate: str | None = None,
    key: str | None = None,
    password_function: str | None = None,
    authenticate: str | None = None,
    *,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """Return a context that trusts the servers of `authenticate`, a file or a directory; by default the system's.

    `certificate` is the client's own, with the key in it or in `key`; `password_function` is the dotted name of a
    function that returns the key's password. ConfigurationError names the file that cannot be used.
    """
    try:
        trusted = {"capath" if os.path.isdir(authenticate) else "cafile": authenticate} if authenticate else {}
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, **trusted)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"<ssl>: authenticate {authenticate}: {_reason(error)}") from error
    context.check_hostname = check_hostname
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if context.cert_store_stats()["crl"]:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, _password(password_function))
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            raise ConfigurationError(f"<ssl>: certificate {certificate}: {_reason(error)}") from error
    return context


def _password(dotted: str | None) -> Callable[[], str | bytes] | None:
    if dotted is None:
        return None
    module, _, name = dotted.rpartition(".")
    try:
        function: Callable[[], str | bytes] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"<ssl>: password-function {dotted}: {error}") from error
    return function


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
