"""The daemon: opens the storages, listens, serves until it is told to stop, and leaves everything in order."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

from zeo_core.errors import ConfigurationError, StorageError
from zeo_core.storage import ServedStorage
from zeo_server.commit.coordinator import Coordinator
from zeo_server.config import Configuration, StorageSection
from zeo_server.invalidation import InvalidationLog, recent_transactions
from zeo_server.listener import Address, Listener, address_text
from zeo_server.service import Service
from zeo_server.session import ServerSession

__all__ = ["banner", "new_event_loop", "run", "serve"]

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger("zeo_server.daemon")


def run(configuration: Configuration, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `say` gets the line that says what is served and how to connect.

    ConfigurationError, in one line, for what keeps the server from starting.
    """
    _start_logging(configuration)
    for warning in configuration.warnings:
        _log.warning("%s", warning)
    with _pid_file(configuration.pid_filename), _open_storages(configuration.storages) as storages:
        # What is there by now stays: the collector need not walk the index again and again.
        gc.collect()
        gc.freeze()
        try:
            with asyncio.Runner(loop_factory=new_event_loop()) as runner:
                runner.run(_serve_until_told(configuration, storages, say))
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


async def serve(configuration: Configuration, storages: dict[str, ServedStorage]) -> tuple[Listener, Service]:
    """Start serving open storages; close the listener and stop the service to end it."""
    loop = asyncio.get_running_loop()
    coordinators: dict[str, Coordinator] = {}
    service = Service(coordinators, read_only=configuration.read_only)
    try:
        for name, storage in storages.items():
            recent = recent_transactions(storage, configuration.invalidation_queue_size)
            coordinators[name] = Coordinator(
                storage,
                loop,
                name=name,
                timeout_s=configuration.transaction_timeout_s,
                invalidation_log=InvalidationLog(configuration.invalidation_queue_size, recent),
            )
        listener = await Listener.open(configuration.address, lambda: ServerSession(service, loop))
    except BaseException:
        await service.stop()  # the writers' threads among others
        raise
    return listener, service


async def _serve_until_told(
    configuration: Configuration, storages: dict[str, ServedStorage], say: Callable[[str], None]
) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, _tell, told, number)
    listener, service = await serve(configuration, storages)
    try:
        _log.info("listening on %s", address_text(listener.address))
        say(banner({section.name: section.what for section in configuration.storages}, listener.address))
        await told.wait()
    finally:
        listener.close()
        await service.stop()


def _tell(told: asyncio.Event, number: signal.Signals) -> None:
    _log.info("terminated by %s", number.name)
    told.set()


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
