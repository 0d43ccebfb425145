"""Turns on hot objects: a coordinator on a real loop, with clients that are recorders of what they are told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.server.commit.test_coordinator import Recorder
from zeo_core.errors import ConflictError, ReadConflictError
from zeo_core.ids import ZERO_TID, Tid, pack_id
from zeo_server.commit import turns
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.turns import AT_ONCE_S, FORGET_S, PATIENCE_MAX_S, PATIENCE_S, SLICE_S
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


@pytest_asyncio.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    storage = MappingStorage()
    made = Coordinator(storage, asyncio.get_running_loop())
    yield made
    await made.close()
    storage.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept stays kept until something happens, however slow the machine is; and nobody may go on."""
    monkeypatch.setattr(turns, "PATIENCE_S", 60)
    monkeypatch.setattr(turns, "PATIENCE_MAX_S", 60)
    monkeypatch.setattr(turns, "SLICE_S", 0)


def voters(coordinator: Coordinator, count: int, serial: Tid) -> list[Recorder]:
    """Clients with a vote each on A; the first has its answer, the others wait."""
    clients = [Recorder(coordinator) for _ in range(count)]
    for number, client in enumerate(clients):
        client.begin(1, (A, serial, b"%d" % number))
        client.vote(1)
    return clients


def refused(clients: list[Recorder]) -> list[bool]:
    return [any(isinstance(each, ConflictError) for each in client.answers(1)) for client in clients]


@pytest.mark.usefixtures("patient")
async def test_losers_are_told_one_by_one_and_each_has_its_turn(coordinator: Coordinator) -> None:
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    clients = voters(coordinator, 4, serial)
    clients[0].finish(1)
    serial = await clients[0].answer(1, 2)
    for number in (1, 2, 3):
        assert refused(clients) == [False] + [True] * number + [False] * (3 - number)
        # a latecomer that is up to date comes behind all who wait
        latecomer = Recorder(coordinator)
        latecomer.begin(1, (A, serial, b"late"))
        latecomer.vote(1)
        assert latecomer.answers(1) == []
        latecomer.disconnect("changed its mind")
        serial = await clients[number].commit(2, (A, serial, b"again"))
    assert len(coordinator.locks) == 0
    assert [client.awaiting for client in clients] == [0, 0, 0, 0]


@pytest.mark.usefixtures("patient")
async def test_a_loser_may_change_more_the_second_time(coordinator: Coordinator) -> None:
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    winner, loser, third = voters(coordinator, 3, serial)
    winner.finish(1)
    serial = await winner.answer(1, 2)
    await loser.commit(2, (B, ZERO_TID, b"too"), (A, serial, b"again"))
    assert refused([third]) == [True]


@pytest.mark.usefixtures("patient")
async def test_a_turn_that_would_have_to_wait_is_given_up(coordinator: Coordinator) -> None:
    """Else two could wait for each other: the loser for B, and who holds B for the loser's turn on A."""
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    winner, loser = voters(coordinator, 2, serial)
    winner.finish(1)
    serial = await winner.answer(1, 2)
    holder = Recorder(coordinator)
    holder.begin(1, (B, ZERO_TID, b"b"), (A, serial, b"a"))
    holder.vote(1)
    loser.begin(2, (A, serial, b"again"), (B, ZERO_TID, b"b"))
    loser.vote(2)
    assert (holder.answers(1), loser.answers(2)) == ([[]], [])
    holder.finish(1)
    await holder.answer(1, 2)
    assert isinstance(await loser.answer(2), ConflictError)


@pytest.mark.usefixtures("patient")
async def test_a_turn_is_used_up_by_a_vote_that_is_late_again(coordinator: Coordinator) -> None:
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    winner, loser, third = voters(coordinator, 3, serial)
    winner.finish(1)
    await winner.answer(1, 2)
    loser.begin(2, (A, serial, b"as of before"))
    loser.vote(2)
    assert refused([third]) == [True]
    assert loser.answers(2) == [], "it has its next turn behind the others"
    third.disconnect("")
    assert isinstance(await loser.answer(2), ConflictError)


@pytest.mark.usefixtures("patient")
async def test_a_client_that_goes_away_gives_up_its_turn(coordinator: Coordinator) -> None:
    """Lesson B17: nothing that a client held outlives it."""
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    winner, *others = voters(coordinator, 4, serial)
    winner.finish(1)
    serial = await winner.answer(1, 2)
    others[1].disconnect("while it waits")
    others[0].disconnect("while it is waited for")
    assert refused(others) == [True, False, True]
    others[2].disconnect("too")
    assert len(coordinator.locks) == 0
    await winner.commit(2, (A, serial, b"again"))


async def test_a_client_that_does_not_come_back_is_not_waited_for(coordinator: Coordinator) -> None:
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    winner, *others = voters(coordinator, 4, serial)
    winner.finish(1)
    await winner.answer(1, 2)
    for client in others:
        assert isinstance(await client.answer(1), ConflictError)


@pytest.mark.usefixtures("patient")
async def test_who_is_late_before_anybody_else_comes_has_the_first_turn(coordinator: Coordinator) -> None:
    client, other = Recorder(coordinator), Recorder(coordinator)
    serial = await client.commit(1, (A, ZERO_TID, b"new"))
    other.begin(1, (A, ZERO_TID, b"late"))
    other.vote(1)
    assert refused([other]) == [True]
    client.begin(2, (A, serial, b"next"))
    client.vote(2)
    assert client.answers(2) == []
    await other.commit(2, (A, serial, b"again"))
    assert isinstance(await client.answer(2), ConflictError)


@pytest.mark.usefixtures("patient")
async def test_a_loser_in_line_keeps_nobody_from_other_objects(coordinator: Coordinator) -> None:
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    winner, first = voters(coordinator, 2, serial)
    both, other = Recorder(coordinator), Recorder(coordinator)
    both.begin(1, (A, serial, b"a"), (B, ZERO_TID, b"b"))
    both.vote(1)
    other.begin(1, (B, ZERO_TID, b"b"))
    other.vote(1)
    assert other.answers(1) == []
    winner.finish(1)
    await winner.answer(1, 2)
    assert refused([first, both]) == [True, False]
    assert other.answers(1) == [[]]
    first.disconnect("")
    assert refused([both]) == [True]


@pytest.mark.usefixtures("patient")
async def test_nothing_is_kept_for_who_only_wanted_to_read(coordinator: Coordinator) -> None:
    client, reader = Recorder(coordinator), Recorder(coordinator)
    serial = await client.commit(1, (A, ZERO_TID, b"new"))
    reader.begin(1, (B, ZERO_TID, b"b"), checks=[(A, ZERO_TID)])
    reader.vote(1)
    assert isinstance(await reader.answer(1), ReadConflictError)
    await client.commit(2, (A, serial, b"next"))


async def test_who_commits_again_at_once_may_go_on_for_a_while(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "AT_ONCE_S", 30)
    monkeypatch.setattr(turns, "SLICE_S", 60)
    serial = await Recorder(coordinator).commit(1, (A, ZERO_TID, b"new"))
    quick, waiting = voters(coordinator, 2, serial)
    coordinator._turns._rivals[quick] = rival = turns._Rival()
    rival.again_s, rival.began_s = 10, asyncio.get_running_loop().time() + 1e9  # its turn has just begun
    quick.finish(1)
    serial = await quick.answer(1, 2)
    for txn in (2, 3, 4):
        serial = await quick.commit(txn, (A, serial, b"again"))
        assert refused([waiting]) == [False]
    monkeypatch.setattr(turns, "SLICE_S", -1e18)  # its time is over
    await quick.commit(5, (A, serial, b"the last"))
    assert isinstance(await waiting.answer(1), ConflictError)


async def test_many_count_together(coordinator: Coordinator) -> None:
    """Clients that retry in a loop, two of them slow: each comes to its end, and nothing is left over."""
    seed = Recorder(coordinator)
    serials = {"now": await seed.commit(1, (A, ZERO_TID, b"0"))}

    async def count(client: Recorder, pause_s: float) -> None:
        done = txn = 0
        while done < 15:
            txn += 1
            read = serials["now"]
            await asyncio.sleep(pause_s)
            client.begin(txn, (A, read, b"x"))
            client.vote(txn)
            if not isinstance(await client.answer(txn), ConflictError):
                client.finish(txn)
                tid = await client.answer(txn, 2)
                serials["now"] = max(serials["now"], tid)
                done += 1

    clients = [Recorder(coordinator) for _ in range(8)]
    pauses = [0.03, 0.03, 0, 0, 0, 0, 0.001, 0.001]
    await asyncio.wait_for(asyncio.gather(*map(count, clients, pauses)), 60)
    for client in clients:
        client.disconnect("done")
    assert len(coordinator.locks) == 0
    assert coordinator._turns._kept == {}
    assert coordinator._turns._rivals == {}


def test_patience_grows_with_losses_and_is_kept_for_those_who_come_in_time() -> None:
    rival = turns._Rival()
    now_s = 1000.0
    assert rival.lose(now_s) == PATIENCE_S
    rival.come_back(now_s + 0.1)  # a distant client
    waits = []
    for _ in range(8):
        now_s += 1
        waits.append(rival.lose(now_s))
        rival.come_back(now_s + 0.1)
    assert waits[0] == 0, "it has shown that it would not come in time"
    assert 0.1 < waits[-1] < 0.41, "it has lost so often that it is waited for, and not for longer than it needs"
    assert rival.lose(now_s + 2 * FORGET_S) == PATIENCE_S
    stranger = turns._Rival()
    assert max(stranger.lose(now_s + number) for number in range(30)) == PATIENCE_MAX_S


def test_who_needs_long_between_commits_is_not_waited_for_then() -> None:
    rival = turns._Rival()
    rival.began_s = 1000.0
    assert rival.commit(1000.0) == 0, "nothing is known of it yet"
    rival.come_back(1000.0005)
    assert 0.0009 < rival.commit(1000.001) < 0.0011
    assert rival.commit(1000.0 + 1.01 * SLICE_S) == 0
    rival.come_back(1000.0 + SLICE_S + 2 * AT_ONCE_S)
    rival.began_s = 1001.0
    assert rival.commit(1001.0) == 0
