"""Who is at the other end of a connection, as far as the operating system or a certificate vouches for it."""

import asyncio
import socket
import struct
from typing import Any, NamedTuple

__all__ = ["Peer", "peer_name"]

_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """`names` are those of the peer's certificate, in lower case; `uid` is the user at the end of a Unix socket."""

    names: frozenset[str] = frozenset()
    uid: int | None = None

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> "Peer":
        """Return who is there; ssl shows no certificate that was not verified."""
        credentials = _credentials(transport)
        certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
        return cls(_names(certificate), None if credentials is None else credentials[1])


def peer_name(transport: asyncio.BaseTransport) -> str:
    """Return host:port, or the process at the other end of a Unix socket, for log lines."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
    credentials = _credentials(transport)
    return "a local process" if credentials is None else "process {} of user {}".format(*credentials)


def _credentials(transport: asyncio.BaseTransport) -> tuple[int, int] | None:
    """Return process and user at the other end of a Unix socket, None for others and where the platform does not tell.

    They are those of whoever called connect(2).
    """
    connected = transport.get_extra_info("socket")
    try:
        if connected.family != socket.AF_UNIX:
            return None
        packed = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(packed)
    except (AttributeError, OSError):
        return None
    return pid, uid


def _names(certificate: dict[str, Any]) -> frozenset[str]:
    """Return the common names and the subject alternative names of a certificate in the form of ssl.getpeercert."""
    common = (value for part in certificate.get("subject", ()) for key, value in part if key == "commonName")
    alternative = (value for _kind, value in certificate.get("subjectAltName", ()) if isinstance(value, str))
    return frozenset(name.lower() for name in (*common, *alternative))
