"""What a service manager and its services tell each other: sockets handed over, and how the service is doing.

systemd's interface, which others offer too: environment variables, datagrams of the form KEY=VALUE to a Unix socket,
and descriptors from 3 on (the manual pages sd_notify(3) and sd_listen_fds(3)). Without a service manager nothing here
does anything.
"""

import contextlib
import os
import socket
import time
from typing import Final

__all__ = ["has_inherited_sockets", "inherited_sockets", "notify", "reloading", "watchdog_s"]

_FIRST_DESCRIPTOR: Final = 3


def notify(*lines: str) -> None:
    """Send lines such as "READY=1" to the service manager, if there is one that listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path  # @: a name without a file
    # A manager that does not listen, or is gone, changes nothing about what is served.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """Tell that the configuration is being read anew; "READY=1" tells that it has been."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_s() -> float | None:
    """Return after how many seconds of silence the service manager takes this process for dead, None for never."""
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return None
    try:
        period_s = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return period_s if period_s > 0 else None


def has_inherited_sockets() -> bool:
    """Tell whether `inherited_sockets` would return some."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and int(os.environ.get("LISTEN_FDS", "0")) > 0


def inherited_sockets() -> list[socket.socket]:
    """Return the listening sockets that were handed over; none on the second call, and none to child processes."""
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    os.environ.pop("LISTEN_FDNAMES", None)
    sockets = [socket.socket(fileno=descriptor) for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count)]
    for each in sockets:
        each.set_inheritable(False)
    return sockets
