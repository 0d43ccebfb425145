"""Long answers: their order, the client's pace, and the end of the connection."""

import asyncio

from zeo_server.long_answers import LongAnswers


class Client:
    """Asks for names; each answer is its letters, one at a time."""

    def __init__(self) -> None:
        self.reads = True
        self.got = ""
        self.answers: LongAnswers[str] = LongAnswers(self.give, lambda: self.reads)

    async def give(self, name: str) -> None:
        for letter in name:
            await self.answers.room()
            self.got += letter
            await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_was_asked_for_first_is_answered_first() -> None:
    client = Client()
    client.answers.add("first ")
    client.answers.add("second")
    assert len(client.answers) == 2
    await turns()
    assert client.got == "first second"
    client.answers.add(" third")
    await turns()
    assert client.got == "first second third"


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    client = Client()
    client.answers.add("name")
    await turns(2)
    sent = client.got
    client.reads = False
    await turns()
    assert client.got == sent
    client.answers.resume()  # too early: it does not read yet
    await turns()
    assert client.got == sent
    client.reads = True
    client.answers.resume()
    await turns()
    assert client.got == "name"


async def test_nothing_is_answered_after_the_end() -> None:
    client = Client()
    client.answers.add("first")
    client.answers.add("second")
    await turns(2)
    sent = client.got
    client.answers.close()
    client.answers.close()
    await turns()
    assert client.got == sent
    assert len(client.answers) == 0
