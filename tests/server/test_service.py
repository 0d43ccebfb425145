import asyncio

import pytest

from zeo_core.errors import AccessDeniedError, ReadOnlyError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.roles import ClientRole
from zeo_server.access import AccessRules, UnixUserRule
from zeo_server.commit.coordinator import Coordinator
from zeo_server.limits import Limits
from zeo_server.peer import Peer
from zeo_server.service import Service
from zeo_server.status import ClientStatus
from zeo_server.storages.mapping import MappingStorage


class Visitor:
    """A connection of which only the end matters here."""

    def __init__(self, service: Service, coordinator: Coordinator) -> None:
        self.service, self.coordinator = service, coordinator
        self.frames: list[bytes] = []
        self.ends: list[str] = []
        self.awaiting = 0
        coordinator.join(self)
        service.enter(self)

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass

    def send_later(self, frame: bytes) -> None:
        self.send(frame)

    def disconnect(self, reason: str) -> None:
        self.ends.append(reason)
        self.coordinator.leave(self)
        self.service.exit(self)

    def abort(self) -> None:
        self.disconnect("aborted")

    def end_if_silent(self, now_s: float, limits: Limits) -> None:
        pass

    def status(self) -> ClientStatus | None:
        return None


class Stubborn(Visitor):
    """Does not go when it is asked to."""

    def disconnect(self, reason: str) -> None:
        self.ends.append(reason)


def serving(**storages: MappingStorage) -> tuple[Service, Coordinator]:
    loop = asyncio.get_running_loop()
    coordinators = {name: Coordinator(storage, loop, name=name) for name, storage in storages.items()}
    service = Service(coordinators)
    return service, next(iter(coordinators.values()))


async def test_storages_are_chosen_by_name() -> None:
    service, main = serving(main=MappingStorage(), other=MappingStorage())
    assert service.choose("main", False, Peer()) == (main, ClientRole.ADMIN)
    with pytest.raises(ValueError, match="unknown storage: 1"):
        service.choose("1", False, Peer())
    service.read_only = True
    with pytest.raises(ReadOnlyError):
        service.choose("main", False, Peer())
    assert service.choose("main", True, Peer()) == (main, ClientRole.READER)
    assert set(service.status().storages) == {"main", "other"}
    await service.stop()


async def test_rules_say_who_may_do_what() -> None:
    service, main = serving(main=MappingStorage(), other=MappingStorage())
    service.access = AccessRules((UnixUserRule(1, ClientRole.WRITER), UnixUserRule(2, ClientRole.READER, ("main",))))
    assert service.choose("main", False, Peer(uid=1)) == (main, ClientRole.WRITER)
    assert service.choose("main", True, Peer(uid=1)) == (main, ClientRole.READER)
    with pytest.raises(ReadOnlyError):
        service.choose("main", False, Peer(uid=2))
    with pytest.raises(AccessDeniedError):
        service.choose("other", True, Peer(uid=2))
    with pytest.raises(AccessDeniedError):  # who has no role does not learn which storages there are
        service.choose("no such storage", True, Peer(uid=3))
    with pytest.raises(ValueError, match="unknown storage"):
        service.choose("no such storage", True, Peer(uid=1))
    await service.stop()


async def test_stop_cuts_off_the_idle_and_waits_for_those_who_voted() -> None:
    service, coordinator = serving(main=MappingStorage(), other=MappingStorage())
    idle, voter = Visitor(service, coordinator), Visitor(service, coordinator)
    outcomes: list[object] = []
    coordinator.begin(voter, 1)
    coordinator.store(voter, 1, pack_id(1), ZERO_TID, b"data")
    coordinator.vote(voter, 1, outcomes.append)
    stopping = asyncio.create_task(service.stop(10))
    while not idle.ends:
        await asyncio.sleep(0)
    assert not voter.ends
    coordinator.finish(voter, 1, outcomes.append)
    await stopping
    assert outcomes == [[], coordinator.storage.last_tid()]
    assert idle.ends == voter.ends == ["the server is stopping"]


async def test_stop_does_not_wait_for_ever() -> None:
    service, coordinator = serving(main=MappingStorage())
    voter = Visitor(service, coordinator)
    outcomes: list[object] = []
    coordinator.begin(voter, 1)
    coordinator.vote(voter, 1, outcomes.append)
    await service.stop(0.01)
    assert outcomes == [[]]
    assert voter.ends == ["the server is stopping"]
    assert coordinator.storage.last_tid() == ZERO_TID


async def test_one_who_does_not_take_its_last_reply_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeo_server.service.CLOSE_GRACE_S", 0.01)
    service, coordinator = serving(main=MappingStorage())
    stubborn = Stubborn(service, coordinator)
    await service.stop(0.01)
    assert stubborn.ends[-1] == "aborted"


async def test_there_are_limits_to_how_many_come() -> None:
    service, _ = serving(main=MappingStorage())
    service.change_limits(Limits(clients_max=3, clients_per_address_max=2))
    here = [object() for _ in range(3)]
    assert service.enter(here[0], "192.0.2.1") is None  # type: ignore[arg-type]
    assert service.enter(here[1], "192.0.2.1") is None  # type: ignore[arg-type]
    refused = service.enter(here[2], "192.0.2.1")  # type: ignore[arg-type]
    assert refused is not None
    assert "2 clients are connected from 192.0.2.1" in refused
    service.exit(here[2])  # type: ignore[arg-type]
    service.exit(here[2])  # type: ignore[arg-type]
    assert service.enter(here[2]) is None  # type: ignore[arg-type]
    refused = service.enter(object())  # type: ignore[arg-type]
    assert refused is not None
    assert "as many as max-clients allows" in refused
    for each in list(service.connections):
        service.exit(each)
    assert service.enter(here[0], "192.0.2.1") is None  # type: ignore[arg-type]
    service.exit(here[0])  # type: ignore[arg-type]
    await service.stop()
