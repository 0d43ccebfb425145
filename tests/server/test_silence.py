import asyncio

from zeo_server.limits import Limits
from zeo_server.silence import SilenceWatch


class Watched:
    """Takes note of being looked at, and leaves after some looks."""

    def __init__(self, connections: set["Watched"], leaves_after: int) -> None:
        self._connections, self._left = connections, leaves_after
        self.looks: list[float] = []
        self.gone = asyncio.Event()

    def end_if_silent(self, now_s: float, limits: Limits) -> None:
        self.looks.append(now_s)
        if len(self.looks) == self._left:
            self._connections.discard(self)
            self.gone.set()


async def test_connections_are_looked_at_while_there_are_some() -> None:
    loop = asyncio.get_running_loop()
    connections: set[Watched] = set()
    watch = SilenceWatch(loop, connections, Limits(idle_timeout_s=0.2))
    connection = Watched(connections, 3)
    connections.add(connection)
    watch.start()
    watch.start()  # one timer does for all
    await asyncio.wait_for(connection.gone.wait(), 20)
    assert connection.looks == sorted(set(connection.looks))
    again = Watched(connections, 1)
    connections.add(again)
    watch.start()
    await asyncio.wait_for(again.gone.wait(), 20)
    watch.close()


async def test_nobody_looks_where_there_is_no_limit_until_there_is_one() -> None:
    connections: set[Watched] = set()
    watch = SilenceWatch(asyncio.get_running_loop(), connections, Limits(registration_timeout_s=0))
    connection = Watched(connections, 1)
    connections.add(connection)
    watch.start()
    assert watch._timer is None
    watch.change(Limits(registration_timeout_s=0.1))
    await asyncio.wait_for(connection.gone.wait(), 20)
    watch.close()
