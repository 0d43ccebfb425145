"""Whether a server would start: everything is looked at, nothing is made or changed.

What another process holds at the moment, very likely the server whose new configuration is being looked at, is told
apart from what is wrong.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from zeo_core.errors import ConfigurationError, FileLockedError, StorageError
from zeo_server.config import Configuration
from zeo_server.listener import Address, address_text, check_address
from zeo_server.privileges import user_entry

__all__ = ["Report", "preflight"]


@dataclass
class Report:
    """What was found: `faults` keep a server from starting, what is `in_use` does so until it is free."""

    faults: list[str] = field(default_factory=list)
    in_use: list[str] = field(default_factory=list)

    def look(self, what: str, probe: Callable[[], object]) -> None:
        """Take note of what `probe` raises."""
        try:
            probe()
        except FileLockedError as error:
            self.in_use.append(f"{what}: {error}")
        except (ConfigurationError, StorageError, OSError) as error:
            self.faults.append(f"{what}: {error}")


def preflight(configuration: Configuration) -> Report:
    """Look at the addresses, the storages, the file for the process id, and the user."""
    report = Report()
    report.look("address", lambda: _probe_address("address", configuration.address, report))
    metrics_address = configuration.metrics_address
    if metrics_address is not None:
        report.look("metrics-address", lambda: _probe_address("metrics-address", metrics_address, report))
    if configuration.tls is not None:
        report.look("ssl", configuration.tls.context)
    for section in configuration.storages:
        report.look(f"storage {section.name}", section.probe)
    if configuration.pid_filename:
        report.look("pid-filename", lambda: _probe_directory(configuration.pid_filename or ""))
    if configuration.user is not None:
        report.look("user", lambda: user_entry(configuration.user or ""))
    return report


def _probe_address(key: str, address: Address, report: Report) -> None:
    if _answers(address):
        report.in_use.append(f"{key}: somebody listens on {address_text(address)}")
    else:
        check_address(address)


def _answers(address: Address) -> bool:
    """Tell whether somebody accepts connections there."""
    try:
        if isinstance(address, str):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(address)
        else:
            socket.create_connection((address[0] or "localhost", address[1]), timeout=1).close()
    except OSError:
        return False
    return True


def _probe_directory(path: str) -> None:
    directory = os.path.dirname(os.path.abspath(path))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{directory}: no files can be made there")
