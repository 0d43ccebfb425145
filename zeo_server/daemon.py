"""The daemon: opens the storages, listens, serves until it is told to stop, and leaves everything in order.

SIGTERM and SIGINT stop it. SIGHUP has it read its configuration anew, as far as that can change while it serves;
SIGUSR2 has it open its log files anew, after somebody has moved them away.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from ssl import SSLContext
from typing import NamedTuple

from ZConfig.components.logger.loghandler import reopenFiles

from zeo_core.errors import ConfigurationError, StorageError
from zeo_core.storage import ServedStorage
from zeo_server import systemd
from zeo_server.allow_list import AllowList
from zeo_server.commit.coordinator import Coordinator
from zeo_server.config import Configuration, StorageSection
from zeo_server.following import Following
from zeo_server.invalidation import InvalidationLog, recent_transactions
from zeo_server.listener import Address, Listener, address_text, bind
from zeo_server.metrics import MetricsServer
from zeo_server.privileges import become, user_entry
from zeo_server.service import Service
from zeo_server.session import ServerSession
from zeo_server.storages.local import LocalStorage
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["CLOSED_DOOR", "RELAYED_TIMEOUT_SHARE", "Door", "Reload", "banner", "new_event_loop", "run", "serve"]

RELAYED_TIMEOUT_SHARE = 0.8
"""What is left of transaction-timeout for who commits to another server's storage."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_IN_THE_CLEAR = (
    "other machines can reach this address, and what they send and get is neither encrypted nor is it known who they "
    "are: add an <ssl> section, or listen on 127.0.0.1 or a Unix socket, or say `private-network yes` in <zeo>"
)

_log = logging.getLogger("ZEO.runzeo")


Reload = Callable[[], Configuration]
"""Reads the configuration anew; ConfigurationError."""


class Door(NamedTuple):
    """What clients come through: the context of TLS, if they have to speak it, and the sockets, if they are bound."""

    tls: SSLContext | None = None
    bound: Sequence[socket.socket] | None = None


CLOSED_DOOR = Door()
"""Nothing is bound yet, and there is no TLS."""


def run(configuration: Configuration, say: Callable[[str], None], reload: Reload | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `say` gets the line that says what is served and how to connect.

    `reload` is what SIGHUP calls, None if there is nothing to read anew.

    ConfigurationError, in one line, for what keeps the server from starting.
    """
    with contextlib.ExitStack() as opened:
        door = _open_door(configuration, opened)
        _start_logging(configuration)
        for warning in configuration.warnings:
            _log.warning("%s", warning)
        storages = opened.enter_context(_open_storages(configuration.storages))
        # What is there by now stays: the collector need not walk the index again and again.
        gc.collect()
        gc.freeze()
        try:
            with asyncio.Runner(loop_factory=new_event_loop()) as runner:
                runner.run(_serve_until_told(configuration, storages, door, say, reload))
        except StorageError as error:
            raise ConfigurationError(f"cannot serve: {error}") from error


def new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the maker of event loops: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def banner(storages: dict[str, str], address: Address) -> str:
    """Return the line that says what is served and how to connect; `storages` maps names to what they are."""
    served = ", ".join(f"{name} ({what})" for name, what in storages.items())
    url = address_text(address if isinstance(address, str) else (address[0] or "localhost", address[1]))
    url = f"zeo://{os.path.abspath(url) if isinstance(address, str) else url}"
    return f'zeod {version("zeod")} serves {served} on {address_text(address)}; connect with zeo_client.open("{url}")'


async def serve(
    configuration: Configuration, storages: dict[str, ServedStorage], door: Door = CLOSED_DOOR
) -> tuple[Listener, Service]:
    """Start serving open storages; close listener and stop service to end it."""
    loop = asyncio.get_running_loop()
    coordinators: dict[str, Coordinator] = {}
    classes = AllowList(configuration.conflict_resolution_classes, configuration.merge_rules)
    limits = configuration.limits
    service = Service(coordinators, read_only=configuration.read_only, access=configuration.access, limits=limits)
    try:
        for name, storage in storages.items():
            if isinstance(storage, LocalStorage):
                storage.resolve_conflicts(classes.load, classes.rule)  # for what it undoes
            log, following = _invalidation_log(configuration, name, storage)
            coordinators[name] = Coordinator(
                storage,
                loop,
                name=name,
                timeout_s=_timeout_s(configuration, storage),
                limits=limits,
                spool_directory=configuration.spool_directory,
                resolution_classes=classes,
                clients_resolve=configuration.client_conflict_resolution,
                invalidation_log=log,
            )
            if following is not None:
                following.tell(coordinators[name])
        inherited = systemd.inherited_sockets()
        if inherited:
            listener = await Listener.adopt(inherited, lambda: ServerSession(service, loop), door.tls)
        else:
            address = configuration.address
            listener = await Listener.open(address, lambda: ServerSession(service, loop), door.tls, door.bound)
    except BaseException:
        await service.stop()  # the writers' threads among others
        raise
    return listener, service


def _timeout_s(configuration: Configuration, storage: ServedStorage) -> float:
    """Return how long a client may take between vote and finish.

    Of another server's storage it is shorter: there the same time runs for the connection from here, and with that one
    everybody here would be cut off.
    """
    share = RELAYED_TIMEOUT_SHARE if isinstance(storage, RelayedStorage) else 1.0
    return configuration.transaction_timeout_s * share


def _invalidation_log(
    configuration: Configuration, name: str, storage: ServedStorage
) -> tuple[InvalidationLog, Following | None]:
    """Return what is known of the last transactions, and who follows them if another server makes them."""
    size, age_s = configuration.invalidation_queue_size, configuration.invalidation_age_s
    if not isinstance(storage, RelayedStorage):
        return InvalidationLog(size, recent_transactions(storage, size), age_s), None
    log = InvalidationLog(size, (), age_s)
    following = Following(storage, log, asyncio.get_running_loop(), name)
    following.begin()
    return log, following


async def _serve_until_told(
    configuration: Configuration,
    storages: dict[str, ServedStorage],
    door: Door,
    say: Callable[[str], None],
    reload: Reload | None,
) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, _tell, told, number)
    listener, service = await serve(configuration, storages, door)
    loop.add_signal_handler(signal.SIGHUP, _Reloader(configuration, service, reload, door.tls))
    loop.add_signal_handler(signal.SIGUSR2, _reopen_logs)
    # Who limits the size of files wants errors, not a dead server.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    metrics: MetricsServer | None = None
    try:
        if configuration.metrics_address is not None:
            tls = door.tls if configuration.metrics_tls else None
            metrics = MetricsServer(configuration.metrics_address, service.status, loop, tls)
            _log.info("metrics on %s", metrics.url)
            if tls is None and not configuration.private_network and metrics.open_to_others:
                _log.warning("%s: everybody who can reach it can read the metrics; see metrics-tls", metrics.url)
        _log.info("listening on %s", address_text(listener.address))
        if door.tls is None and not configuration.private_network and listener.open_to_others():
            _log.warning("%s: %s", address_text(listener.address), _IN_THE_CLEAR)
        say(banner({section.name: section.what for section in configuration.storages}, listener.address))
        systemd.notify("READY=1", f"STATUS=listening on {address_text(listener.address)}")
        await _wait(told, systemd.watchdog_s())
    finally:
        systemd.notify("STOPPING=1")
        listener.close()
        if metrics is not None:  # first, and not here: a scrape that is under way waits for the loop
            await loop.run_in_executor(None, metrics.close)
        await service.stop()


async def _wait(told: asyncio.Event, watchdog_s: float | None) -> None:
    """Wait to be told; a service manager that watches hears of the loop being alive, twice as often as it wants."""
    while watchdog_s is not None and not told.is_set():
        systemd.notify("WATCHDOG=1")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), watchdog_s / 2)
    await told.wait()


def _tell(told: asyncio.Event, number: signal.Signals) -> None:
    _log.info("terminated by %s", number.name)
    told.set()


def _reopen_logs() -> None:
    reopenFiles()
    _log.info("log files reopened")


class _Reloader:
    """What SIGHUP does: the new configuration takes the place of the old one where that is possible while serving.

    A file that cannot be used is told in the log, and nothing changes.
    """

    def __init__(
        self, configuration: Configuration, service: Service, reload: Reload | None, tls: SSLContext | None
    ) -> None:
        self._configuration = configuration
        self._tls = tls
        self._service = service
        self._reload = reload

    def __call__(self) -> None:
        if self._reload is None:
            _log.warning("told to read the configuration anew, but there is no configuration file")
            return
        systemd.reloading()
        try:
            new = self._reload()
            if self._tls is not None and new.tls is not None:
                new.tls.load(self._tls)
            _replace_logging(new)
        except ConfigurationError as error:
            _log.error("the configuration stays as it was: %s", error)
        else:
            self._use(new)
        systemd.notify("READY=1")

    def _use(self, new: Configuration) -> None:
        old = self._configuration
        self._service.access = new.access
        self._service.change_limits(new.limits)
        for coordinator in self._service.storages.values():
            coordinator.timeouts.change(_timeout_s(new, coordinator.storage))
            coordinator.invalidations.resize(new.invalidation_queue_size)
            coordinator.invalidations.age_s = new.invalidation_age_s
        for warning in new.warnings:
            _log.warning("%s", warning)
        fixed = {
            "address": old.address != new.address,
            "<ssl>, to have it or not,": (old.tls is None) != (new.tls is None),
            "spool-directory": old.spool_directory != new.spool_directory,
            "metrics-address": old.metrics_address != new.metrics_address,
            "metrics-tls": old.metrics_tls != new.metrics_tls,
            "read-only": old.read_only != new.read_only,
            "pid-filename": old.pid_filename != new.pid_filename,
            "user": old.user != new.user,
            "the storages": [(each.name, each.what) for each in old.storages]
            != [(each.name, each.what) for each in new.storages],
        }
        for name in (name for name, differs in fixed.items() if differs):
            _log.warning("%s cannot change while zeod serves: a restart is needed", name)
        self._configuration = replace(
            new,
            address=old.address,
            metrics_address=old.metrics_address,
            metrics_tls=old.metrics_tls,
            spool_directory=old.spool_directory,
            read_only=old.read_only,
            pid_filename=old.pid_filename,
            storages=old.storages,
        )
        _log.info("configuration reloaded")


def _open_door(configuration: Configuration, opened: contextlib.ExitStack) -> Door:
    """Do what may need root: read the keys, bind, write the process id. Then be the user that is to serve.

    No file of a client's and no byte of the network has been looked at until then.
    """
    tls = None if configuration.tls is None else configuration.tls.context()
    user = configuration.user
    if user is None:
        opened.enter_context(_pid_file(configuration.pid_filename))
        return Door(tls)
    bound = None if systemd.has_inherited_sockets() else bind(configuration.address)
    for each in bound or ():
        opened.callback(each.close)
    if isinstance(configuration.address, str) and bound is not None:
        os.chown(configuration.address, *user_entry(user)[2:4])  # it is the user who removes it
    opened.enter_context(_pid_file(configuration.pid_filename))
    become(user)
    return Door(tls, bound)


@contextmanager
def _open_storages(sections: tuple[StorageSection, ...]) -> Iterator[dict[str, ServedStorage]]:
    """Open all storages, and close them at the end whatever happens: that is what saves their indexes."""
    with contextlib.ExitStack() as opened:
        storages: dict[str, ServedStorage] = {}
        for section in sections:
            _log.info("opening storage %s: %s", section.name, section.what)
            try:
                storage = section.open()
            except (StorageError, OSError) as error:
                raise ConfigurationError(f"cannot open storage {section.name}: {error}") from error
            opened.callback(storage.close)
            storages[section.name] = storage
        yield storages


@contextmanager
def _pid_file(path: str | None) -> Iterator[None]:
    """Keep the process id in a file for as long as the server runs. One that cannot be written stops nothing."""
    if not path:
        yield
        return
    try:
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        _log.error("%s: cannot write the process id: %s", path, error.strerror)
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _start_logging(configuration: Configuration) -> None:
    """Log as the configuration says, else to stderr from INFO on."""
    if configuration.start_logging is None:
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        return
    try:
        configuration.start_logging()
    except OSError as error:
        raise ConfigurationError(f"<eventlog>: {error}") from error


def _replace_logging(configuration: Configuration) -> None:
    """Log as another configuration says; ConfigurationError if it cannot be done, and then as before."""
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], []
    try:
        _start_logging(configuration)
    except ConfigurationError:
        root.handlers[:] = before
        raise
    for handler in before:
        handler.close()
