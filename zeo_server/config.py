"""What to serve, from a zeo.conf or from the command line.

The file's format is ZConfig's: sections, `%define`, `%include`, `$(ENVIRONMENT)`. schema.xml lists what it may hold.
Relative paths are relative to the current directory, as with runzeo.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import ZConfig
from ZConfig.datatypes import SocketBindingAddress
from ZConfig.loader import ConfigLoader

from zeo_core.errors import ConfigurationError
from zeo_core.protobuf_resolve import MergeRule
from zeo_core.storage import ServedStorage
from zeo_server.access import AccessRules
from zeo_server.allow_list import DEFAULT_CLASSES, check_names
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.listener import Address
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.format import MAGIC_SIZE
from zeo_server.storages.file.probe import probe_file
from zeo_server.storages.mapping import MappingStorage
from zeo_server.tls import TLSFiles

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_PATH",
    "DEFAULT_STORAGE",
    "Configuration",
    "StorageSection",
    "address_value",
    "blob_storage_section",
    "class_names",
    "demo_storage_section",
    "file_storage",
    "file_storage_section",
    "load",
    "mapping_storage_section",
    "metrics_address",
    "numbered",
    "parse_address",
    "ssl_section",
]

DEFAULT_ADDRESS: Address = ("127.0.0.1", 9672)
"""Where zeod listens unless told otherwise: reachable from this machine only."""

DEFAULT_PATH = "Data.fs"
"""What zeod serves unless told otherwise, in the current directory."""

DEFAULT_STORAGE = "1"
"""The name of a storage whose section has none."""

_log = logging.getLogger("ZEO.runzeo")

_SCHEMA = os.path.join(os.path.dirname(__file__), "schema.xml")
_REMOVED_KEYS = ("monitor_address", "authentication_protocol", "authentication_database", "authentication_realm")


@dataclass(frozen=True, slots=True)
class StorageSection:
    """A storage to open: its name for clients ("" if none was given), what it is in a word, and how to open it.

    `probe` raises what `open` would, or FileLockedError if another process has it open, and changes nothing.
    `with_blobs` returns the same one with a directory for blobs, and `open_to_read` opens it beside a server that has
    it open, where that is possible.
    """

    name: str
    what: str
    open: Callable[[], ServedStorage]
    warnings: tuple[str, ...] = ()
    probe: Callable[[], None] = lambda: None
    with_blobs: "Callable[[str], StorageSection] | None" = None
    open_to_read: Callable[[], ServedStorage] | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a daemon has to know. `start_logging` sets up the log as the file says, None if it says nothing."""

    address: Address
    storages: tuple[StorageSection, ...]
    metrics_address: tuple[str, int] | None = None
    metrics_tls: bool = False
    read_only: bool = False
    private_network: bool = False
    invalidation_queue_size: int = 100
    invalidation_age_s: float | None = None
    transaction_timeout_s: float = 30.0
    client_conflict_resolution: bool = False
    conflict_resolution_classes: Sequence[str] = DEFAULT_CLASSES
    merge_rules: Mapping[str, MergeRule] | None = None
    pid_filename: str | None = None
    user: str | None = None
    tls: TLSFiles | None = None
    access: AccessRules | None = None
    limits: Limits = DEFAULT_LIMITS
    spool_directory: str | None = None
    start_logging: Callable[[], object] | None = None
    warnings: tuple[str, ...] = ()


class _Loader(ConfigLoader):
    """Loads files that were written for ZEO: the sections that they import are there already."""

    def importSchemaComponent(self, pkgname: str) -> None:  # noqa: N802 - ZConfig's name
        """Import the sections of a package."""
        if pkgname not in ("ZEO", "ZODB", "zeo_client"):
            super().importSchemaComponent(pkgname)


def load(path: str) -> Configuration:
    """Read a configuration file; ConfigurationError, in one line that names file and place, if it cannot be used."""
    try:
        schema = ZConfig.loadSchema(_SCHEMA)
        root, _handlers = _Loader(schema).loadURL(path)
    except ZConfig.ConfigurationError as error:
        raise ConfigurationError(_one_line(path, error)) from error
    zeo = root.zeo
    if zeo.transaction_timeout < 0:
        raise ConfigurationError(f"{path}: transaction-timeout {zeo.transaction_timeout:g} is negative")
    if zeo.metrics_tls and zeo.ssl is None:
        raise ConfigurationError(f"{path}: metrics-tls needs the certificate of an <ssl> section")
    try:
        limits = Limits(**{name: getattr(zeo, key.replace("-", "_")) for key, name in Limits.keys().items()})
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    storages = numbered(root.storages, path)
    if zeo.access is not None:
        _check_access(zeo.access, zeo.ssl, {storage.name for storage in storages}, path)
    return Configuration(
        address=zeo.address,
        storages=storages,
        metrics_address=zeo.metrics_address,
        metrics_tls=zeo.metrics_tls,
        read_only=zeo.read_only,
        private_network=zeo.private_network,
        invalidation_queue_size=zeo.invalidation_queue_size,
        invalidation_age_s=zeo.invalidation_age,
        transaction_timeout_s=zeo.transaction_timeout,
        client_conflict_resolution=zeo.client_conflict_resolution,
        conflict_resolution_classes=zeo.conflict_resolution_classes,
        merge_rules=zeo.protobuf,
        pid_filename=zeo.pid_filename,
        user=zeo.user,
        tls=zeo.ssl,
        access=zeo.access,
        limits=limits,
        spool_directory=zeo.spool_directory,
        start_logging=root.eventlog,
        warnings=(*_warnings(zeo), *(warning for storage in storages for warning in storage.warnings)),
    )


def numbered(storages: Sequence[StorageSection], path: str) -> tuple[StorageSection, ...]:
    """Give the one storage that may lack a name the name "1"; ConfigurationError if two have one name."""
    named: dict[str, StorageSection] = {}
    for storage in storages:
        name = storage.name or DEFAULT_STORAGE
        if name in named:
            detail = "" if storage.name and named[name].name else f" (a storage without a name is {DEFAULT_STORAGE!r})"
            raise ConfigurationError(f"{path}: two storages have the name {name!r}{detail}")
        named[name] = replace(storage, name=name)
    return tuple(named.values())


def parse_address(text: str) -> Address:
    """Return the address that `text` means; ConfigurationError if it means none."""
    try:
        return address_value(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def address_value(text: str) -> Address:
    """Return the address that `text` means, as ZConfig wants it: ValueError, to which it adds file and line."""
    try:
        address = SocketBindingAddress(text).address
    except ValueError as error:
        raise ValueError(f"{text!r} is no address: {error}") from error
    if isinstance(address, str):
        return address
    host, port = address
    if port is None:
        raise ValueError(f"{text!r} is no address: it has no port")
    return str(host), int(port)


def metrics_address(text: str) -> tuple[str, int]:
    """Return the address that `text` means, as `address_value` does; ValueError also for a Unix socket."""
    address = address_value(text)
    if isinstance(address, str):
        raise ValueError(f"{text!r} is no address for metrics: they are read over TCP")  # noqa: TRY004 - a key's value
    return address


def class_names(text: str) -> Sequence[str]:
    """Return the names of classes in `text`, separated by spaces; `default` stands for those of BTrees."""
    return check_names([name for word in text.split() for name in (DEFAULT_CLASSES if word == "default" else [word])])


def file_storage(name: str, path: str, **options: Any) -> StorageSection:
    """Return the section for a FileStorage, opened with `options`, those of its constructor."""

    def with_blobs(directory: str) -> StorageSection:
        return file_storage(name, path, **{**options, "blob_dir": directory})

    has_blobs = bool(options.get("blob_dir"))
    return StorageSection(
        name,
        path,
        lambda: _open_file(path, **options),
        probe=lambda: probe_file(path, **_as_it_is(path, options)),
        with_blobs=None if has_blobs else with_blobs,
        open_to_read=lambda: FileStorage(path, **{**options, "create": False, "read_only": True}),
    )


def _open_file(path: str, **options: Any) -> FileStorage:
    usable = _as_it_is(path, options)
    if usable["create"] != options.get("create", False):
        _log.warning("%s: has data, and is opened as it is; `create` has no effect", path)
    return FileStorage(path, **usable)


def _as_it_is(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for the file that is there: `create` is read at each start, at the second it has data."""
    has_data = os.path.exists(path) and os.path.getsize(path) >= MAGIC_SIZE
    return {**options, "create": options.get("create", False) and not has_data}


def file_storage_section(section: Any) -> StorageSection:
    """Make the section of a <filestorage>."""
    if section.create and section.read_only:
        raise ValueError("<filestorage>: create and read-only exclude each other")
    made = file_storage(
        section.getSectionName() or "",
        section.path,
        create=section.create,
        read_only=section.read_only,
        blob_dir=section.blob_dir or None,
        quota=section.quota,
        pack_gc=section.pack_gc,
        pack_keep_old=section.pack_keep_old,
    )
    return replace(made, warnings=(*made.warnings, f"{section.path}: packer has no effect")) if section.packer else made


def ssl_section(section: Any) -> TLSFiles:
    """Make what an <ssl> says."""
    if section.authenticate == "DYNAMIC":
        raise ValueError("<ssl>: authenticate DYNAMIC is for ZEO's own tests: name a file or a directory, or SIGNED")
    return TLSFiles(
        section.certificate,
        section.key,
        section.password_function,
        section.authenticate,
        section.check_hostname,
        section.server_hostname,
    )


def mapping_storage_section(section: Any) -> StorageSection:
    """Make the section of a <mappingstorage>."""
    return StorageSection(section.getSectionName() or "", "in memory", lambda: MappingStorage(section.name))


def demo_storage_section(section: Any) -> StorageSection:
    """Make the section of a <demostorage>. It holds up to two storages: the one named `changes`, and the base."""
    parts: dict[str, StorageSection] = {}
    for part in section.storages:
        role = "changes" if part.name == "changes" else "base"
        if role in parts:
            raise ValueError(f"<demostorage>: two storages for the {role}")
        parts[role] = part
    base, changes = parts.get("base"), parts.get("changes")
    what = f"changes {changes.what if changes else 'in memory'} over {base.what if base else 'nothing'}"
    warnings = tuple(warning for part in parts.values() for warning in part.warnings)
    name = section.getSectionName() or ""

    def probe() -> None:
        for part in parts.values():
            part.probe()

    return StorageSection(name, what, lambda: _open_demo(section.name, base, changes), warnings, probe)


def _open_demo(name: str | None, base: StorageSection | None, changes: StorageSection | None) -> DemoStorage:
    with ExitStack() as opened:  # closes the one if the other, or both together, cannot be opened

        def open_part(section: StorageSection | None) -> ServedStorage | None:
            storage = None if section is None else section.open()
            if storage is not None:
                opened.callback(storage.close)
            return storage

        storage = DemoStorage(name, open_part(base), open_part(changes))
        opened.pop_all()
        return storage


def blob_storage_section(section: Any) -> StorageSection:
    """Make the section of a <blobstorage>: the <filestorage> in it, with a directory for blobs."""
    inner: StorageSection = section.storage
    if inner.with_blobs is None:
        raise ValueError("<blobstorage>: only a <filestorage> without blob-dir can be given one")
    made = inner.with_blobs(section.blob_dir)
    return replace(made, name=section.getSectionName() or "", warnings=(*inner.warnings, *made.warnings))


def _check_access(access: AccessRules, tls: TLSFiles | None, storages: set[str], path: str) -> None:
    """Raise ConfigurationError for rules that can fit nobody: somebody else was meant."""
    unknown = access.unknown_storages(storages)
    if unknown:
        raise ConfigurationError(f"{path}: <access>: there is no storage {unknown[0]!r}")
    if access.need_certificates() and (tls is None or tls.authenticate is None):
        raise ConfigurationError(f"{path}: <access>: a rule for a certificate needs an <ssl> with authenticate")


def _one_line(path: str, error: ZConfig.ConfigurationError) -> str:
    """Return ZConfig's error as `file, line 3: what is wrong`; the file may be one that `path` includes."""
    where = (error.url or path).removeprefix("file://")
    line = getattr(error, "lineno", None)
    message = " ".join(str(error.message).split()).removesuffix(".")
    return f"{where}, line {line}: {message}" if line and line > 0 else f"{where}: {message}"


def _warnings(zeo: Any) -> list[str]:
    """Return a line for each key of <zeo> that has no effect."""
    keys = [key.replace("_", "-") for key in _REMOVED_KEYS if getattr(zeo, key)]
    return [f"<zeo>: {key} has no effect" for key in keys]
