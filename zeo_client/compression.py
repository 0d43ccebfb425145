"""Whether a client asks for compressed answers: when its link is slower than compressing is."""

from ipaddress import ip_address
from typing import Final

from zeo_client.transport.channel import Channel

__all__ = ["SLOW_BYTES_S", "Compression"]

SLOW_BYTES_S: Final = 12_000_000
"""A hundred megabits a second. Compressing and decompressing take 20 ns a byte, where such a link takes 80; and the
processor's time, which is the server's, is to bring more than it costs."""


class Compression:
    """The choice of one client: `wanted` always, never, or (None) where the link is slow.

    A link within one machine is not measured: what is slow there is the machine.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._wanted = wanted
        self.is_possible = False
        """Whether `pays` is to be asked on the present connection: most clients never need to."""

    def connected(self, channel: Channel, *, offered: bool) -> None:
        """Take note of a new connection, and of whether the server can compress."""
        measures = self._wanted is None and not _is_local(channel.address.host)
        self.is_possible = offered and (self._wanted is True or measures)

    def pays(self, channel: Channel | None) -> bool:
        """Tell whether answers on this connection are to be compressed."""
        if not self.is_possible or channel is None:
            return False
        return self._wanted is True or 0 < channel.speed.bytes_s < SLOW_BYTES_S


def _is_local(host: str | None) -> bool:
    if not host or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
