import asyncio

import pytest

from zeo_server.outgoing import Outgoing


class Sender:
    def __init__(self, written: list["Sender"], fault: Exception | None = None) -> None:
        self.written, self.fault = written, fault
        self.aborted = False

    def flush(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.written.append(self)

    def abort(self) -> None:
        self.aborted = True


async def soon() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()


def test_all_are_written_to_after_the_callback_in_the_order_they_came() -> None:
    async def run() -> None:
        outgoing = Outgoing(asyncio.get_running_loop())
        written: list[Sender] = []
        first, second = Sender(written), Sender(written)
        outgoing.add(first)
        outgoing.add(second)
        assert written == []
        await soon()
        assert written == [first, second]
        outgoing.add(second)
        await soon()
        assert written == [first, second, second]

    asyncio.run(run())


def test_who_is_added_while_others_are_written_to_comes_next() -> None:
    async def run() -> None:
        outgoing = Outgoing(asyncio.get_running_loop())
        written: list[Sender] = []
        last = Sender(written)

        class Adder(Sender):
            def flush(self) -> None:
                super().flush()
                outgoing.add(last)

        outgoing.add(Adder(written))
        await soon()
        await soon()
        assert written[1:] == [last]

    asyncio.run(run())


def test_a_failure_concerns_one_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        outgoing = Outgoing(asyncio.get_running_loop())
        written: list[Sender] = []
        broken, sound = Sender(written, ZeroDivisionError("not foreseen")), Sender(written)
        outgoing.add(broken)
        outgoing.add(sound)
        await soon()
        assert written == [sound]
        assert (broken.aborted, sound.aborted) == (True, False)
        assert "not foreseen" in caplog.text

    asyncio.run(run())
