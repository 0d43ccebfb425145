"""A bound to the memory of processes that read object records, so that a hostile one cannot take the machine's.

A few bytes of a pickle can ask for gigabytes. A process that would be given them ends by the system's choice, and may
take others with it; one that is refused them gets a MemoryError, which names the record like any other that cannot be
read.
"""

import os
import resource
from contextlib import suppress

from zeo_core.errors import ConfigurationError

__all__ = ["VARIABLE", "bound_memory"]

VARIABLE = "ZEOD_MAX_MEMORY_MB"
"""The environment variable that says how many more megabytes such a process may take; 0 for no bound."""

_MB = 1_000_000


def bound_memory(processes: int = 1) -> None:
    """Bound what this process may take from now on: half of the machine's memory, shared by so many `processes`.

    ConfigurationError if VARIABLE says something else than a number. Where the system knows no such bound, none is set.
    """
    more = _configured()
    if more is None:
        more = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 // processes
    if not more:
        return
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _address_space() + more
    with suppress(OSError, ValueError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _configured() -> int | None:
    text = os.environ.get(VARIABLE)
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigurationError(f"{VARIABLE}: {text!r} is no number of megabytes")
    return int(text) * _MB


def _address_space() -> int:
    """Return the bytes of address space that this process has already."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0
