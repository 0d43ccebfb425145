"""Compressed answers: asked for where they pay, by a client of a real server, and done without where there are none."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping

from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod
from zeo_client.compression import SLOW_BYTES_S, Compression
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel
from zeo_core.errors import POSKeyError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, pack_id, successor

TEXT = "a sentence that is there again and again. " * 10_000
OBJECTS = 600


@pytest.fixture
def address(start_zeod: StartZeod) -> tuple[str, int]:
    """A server with a text, and a tree of small objects."""
    address = start_zeod("-f", "Data.fs").address
    assert isinstance(address, tuple)
    fill(address)
    return address


def fill(address: tuple[str, int]) -> None:
    with DB(ClientStorage(address)) as db, db.transaction() as conn:
        conn.root.text = PersistentMapping(text=TEXT)
        conn.root.tree = OOBTree()
        for number in range(OBJECTS):
            conn.root.tree[number] = PersistentMapping(number=number, name=f"the object number {number}")


def bytes_to_read(address: tuple[str, int], compression: bool | None) -> tuple[int, int]:
    """Return what the server sent for the text, and for the tree."""
    storage = ClientStorage(address, compression=compression, client_label="reader")
    with DB(storage) as db:
        told = [_sent(storage)]
        with db.transaction() as conn:
            assert conn.root.text["text"] == TEXT
            told.append(_sent(storage))
            assert [each["number"] for each in conn.root.tree.values()] == list(range(OBJECTS))
        told.append(_sent(storage))
    return told[1] - told[0], told[2] - told[1]


def _sent(storage: ClientStorage) -> int:
    clients = storage._channel().call("clients")
    return sum(int(client["bytes_out"]) for client in clients if client["label"] == "reader")


def test_less_is_sent_where_it_is_asked_for(address: tuple[str, int]) -> None:
    small, plain = bytes_to_read(address, True), bytes_to_read(address, False)
    assert small[0] < plain[0] / 10
    assert small[1] < plain[1] / 2
    assert bytes_to_read(address, None)[0] > len(TEXT)  # this machine is no slow link


def test_prefetched_objects_come_compressed_too(address: tuple[str, int]) -> None:
    sent = []
    for compression in (True, False):
        storage = ClientStorage(address, compression=compression, client_label="reader")
        before = _sent(storage)
        tid = successor(storage.last_tid())
        storage.prefetch([pack_id(number) for number in range(OBJECTS)], tid)
        storage.prefetch([ZERO_TID], tid, depth=3)
        sent.append(_sent(storage) - before)
        assert storage.cache_stats()["revisions"] >= OBJECTS
        storage.close()
    assert sent[0] < sent[1] / 2


def test_what_there_is_not_is_told_as_ever(address: tuple[str, int]) -> None:
    storage = ClientStorage(address, compression=True)
    with pytest.raises(POSKeyError):
        storage.load_before(pack_id(12345), MAX_TID)
    assert storage.load_before(ZERO_TID, successor(ZERO_TID)) is None
    storage.close()


def test_a_server_of_zeo_is_not_asked(start_runzeo: StartRunZEO, tmp_path: Path) -> None:
    server = start_runzeo(tmp_path / "Data.fs")
    fill(server.address)
    with DB(ClientStorage(server.address, compression=True)) as db, db.transaction() as conn:
        assert conn.root.text["text"] == TEXT


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for each in opened:
        each.close()


def channel_to(address: Address, sockets: list[socket.socket], bytes_s: float = 0) -> Channel:
    sockets += socket.socketpair()
    channel = Channel(sockets[-1], address, lambda *_: None, 1 << 20)
    channel.speed.bytes_s = bytes_s
    return channel


def pays(compression: Compression, channel: Channel, *, offered: bool = True) -> bool:
    compression.connected(channel, offered=offered)
    return compression.pays(channel)


def test_where_it_is_asked_for(sockets: list[socket.socket]) -> None:
    slow = channel_to(Address("db.example.org", 1), sockets, SLOW_BYTES_S / 10)
    fast = channel_to(Address("db.example.org", 1), sockets, SLOW_BYTES_S * 10)
    unknown = channel_to(Address("192.0.2.1", 1), sockets)
    assert [pays(Compression(None), each) for each in (slow, fast, unknown)] == [True, False, False]
    assert [pays(Compression(True), each) for each in (slow, fast, unknown)] == [True, True, True]
    assert [pays(Compression(False), each) for each in (slow, fast, unknown)] == [False, False, False]
    assert not pays(Compression(True), slow, offered=False)
    assert not Compression(True).pays(slow)
    chosen = Compression(True)
    chosen.connected(slow, offered=True)
    assert not chosen.pays(None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", ""])
def test_a_server_on_this_machine_is_no_slow_link(host: str, sockets: list[socket.socket]) -> None:
    channel = channel_to(Address(host, 1, "" if host else "/run/zeod.sock"), sockets, 1000)
    assert not pays(Compression(None), channel)
    assert pays(Compression(True), channel)


def test_what_comes_compressed_is_what_comes_plain(address: tuple[str, int]) -> None:
    loaded: list[list[tuple[Oid, object]]] = []
    for compression in (True, False):
        storage = ClientStorage(address, compression=compression)
        tid = successor(storage.last_tid())
        loaded.append([(pack_id(number), storage.load_before(pack_id(number), tid)) for number in range(OBJECTS)])
        storage.close()
    assert loaded[0] == loaded[1]
