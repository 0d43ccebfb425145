"""What a <zeoclient> of zeo.conf says: a storage of another server, to be served on.

The client that connects to that server is another package's, which this one does not import: it is found as the entry
point "upstream" of the group `zeod.storages`.
"""

import importlib.metadata
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zeo_core.errors import ClientDisconnected, ConfigurationError
from zeo_core.upstream import RemoteBlobStorage, RemoteStorage
from zeo_server.config import StorageSection
from zeo_server.listener import Address, address_text
from zeo_server.storages.relayed import RelayedStorage
from zeo_server.storages.relayed_blobs import RelayedBlobStorage
from zeo_server.tls import SIGNED, TLSFiles

__all__ = ["ENTRY_POINT", "Source", "client_storage_section", "server_address"]

ENTRY_POINT: Final = ("zeod.storages", "upstream")
"""Group and name of what opens a storage of another server."""

_PROBE_TIMEOUT_S = 5.0

_OPTIONS = (
    *("storage", "name", "cache_size", "memory_cache_size", "cache", "client", "var", "wait", "wait_timeout"),
    *("reconnect_timeout", "staging_memory_size", "compression"),
    *("read_only", "read_only_fallback", "client_label", "server_sync"),
    *("blob_dir", "shared_blob_dir", "blob_cache_size", "blob_cache_size_check"),
    *("min_disconnect_poll", "max_disconnect_poll", "drop_cache_rather_verify", "username", "password", "realm"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a storage is, and how to connect to it."""

    servers: tuple[Address, ...]
    options: Mapping[str, Any]
    tls: Mapping[str, Any] | None = None

    @property
    def read_only(self) -> bool:
        """Whether it is only to be read, whatever its server allows."""
        return bool(self.options["read_only"])

    def open(self) -> RelayedStorage:
        """Connect; ConfigurationError if that cannot be, ReadOnlyError if it may only be read and that was not said."""
        try:
            storage = _client()(self.servers, self.options, self.tls)
        except (ClientDisconnected, ValueError) as error:
            raise ConfigurationError(str(error)) from error
        if isinstance(storage, RemoteBlobStorage):
            return RelayedBlobStorage(storage, read_only=self.read_only)
        return RelayedStorage(storage, read_only=self.read_only)

    def probe(self) -> None:
        """Raise ConfigurationError if nobody is there to connect to, or to connect with."""
        _client()
        if self.options["wait"] is not False and not any(map(_answers, self.servers)):
            raise ConfigurationError(f"nobody answers at {', '.join(map(address_text, self.servers))}")


def client_storage_section(section: Any) -> StorageSection:
    """Make the section of a <zeoclient> or a <clientstorage>."""
    options = {name: getattr(section, name, None) for name in _OPTIONS}
    source = Source(tuple(section.server), options, None if section.ssl is None else _client_tls(section.ssl))
    what = f"storage {section.storage} of {', '.join(map(address_text, source.servers))}"
    if source.read_only:
        what = f"read-only replica of {what}"
    return StorageSection(section.getSectionName() or "", what, source.open, probe=source.probe)


def server_address(text: str) -> Address:
    """Return the address of a server that `text` means; ValueError for what is none."""
    from zeo_server.config import address_value

    address = address_value(text)
    return address if isinstance(address, str) else (address[0] or "127.0.0.1", address[1])


def _client_tls(files: TLSFiles) -> dict[str, Any]:
    return {
        "certificate": files.certificate,
        "key": files.key,
        "password_function": files.password_function,
        "authenticate": None if files.authenticate in SIGNED else files.authenticate,
        "check_hostname": files.check_hostname,
        "server_hostname": files.server_hostname,
    }


def _client() -> Callable[[Sequence[Address], Mapping[str, Any], Mapping[str, Any] | None], RemoteStorage]:
    group, name = ENTRY_POINT
    for entry_point in importlib.metadata.entry_points(group=group, name=name):
        opener: Callable[..., RemoteStorage] = entry_point.load()
        return opener
    raise ConfigurationError(f"no installed package offers {name!r} (entry points {group})")


def _answers(address: Address) -> bool:
    """Tell whether somebody accepts connections there."""
    try:
        if isinstance(address, str):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(address)
        else:
            socket.create_connection(address, timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True
