"""The undo log of a served storage, read by a client."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.client.peer import Peer
from tests.client.storages import Open
from tests.contract.storages import Txn, commit
from tests.server.in_process import in_process
from zeo_client.storage import ClientStorage
from zeo_client.undo_log import PAGE_LINES
from zeo_core.errors import RemoteProtocolError, UndoError
from zeo_core.ids import pack_id
from zeo_core.transaction import extension_map

A = pack_id(1)
COUNT = 2 * PAGE_LINES + 10


class Prefix:
    """What Zope asks with: equal to all texts that begin so."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and other.startswith(self.text)

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def storage() -> Iterator[ClientStorage]:
    with in_process() as server, closing(ClientStorage(server.address, wait_timeout=20)) as opened:
        for number in range(COUNT):
            commit(opened, {A: b"%d" % number}, txn=Txn(f"user {number % 7}", str(number), {"k": number}))
        yield opened


def test_the_whole_log_page_by_page(storage: ClientStorage) -> None:
    entries = list(storage.undo_log())
    assert [entry.metadata.description for entry in entries] == [b"%d" % n for n in reversed(range(COUNT))]
    assert extension_map(entries[0].metadata.extension) == {"k": COUNT - 1}
    tids = [entry.tid for entry in entries]
    assert tids == sorted(tids, reverse=True)


def test_what_the_wire_cannot_carry_is_picked_here(storage: ClientStorage) -> None:
    found = storage.undoInfo(0, 3, {"user_name": Prefix(b"user 1"), "k": 1})
    assert [line["description"] for line in found] == [b"1"]
    assert storage.undoInfo(0, 3, {"user_name": b"user 1"}) == storage.undoInfo(0, 3, {"user_name": Prefix(b"user 1")})
    assert [line["k"] for line in storage.undoLog(1, -2, lambda line: line["k"] < 5)] == [3, 2]


def test_lines_that_move_to_the_next_page_are_not_told_twice(storage: ClientStorage) -> None:
    walk = storage.undo_log()
    first = [next(walk) for _ in range(PAGE_LINES)]
    commit(storage, {A: b"one more"})
    rest = list(walk)
    tids = [entry.tid for entry in [*first, *rest]]
    assert len(set(tids)) == len(tids)


@pytest.mark.parametrize("answer", [None, 5, ({},), ({"id": 5},), (b"x",)])
def test_what_is_no_log_ends_the_connection(
    peer: Peer, opened: Open, answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script["undoLog"] = lambda link, request: link.send(link.reply(request, answer))
    storage = opened()
    with pytest.raises(RemoteProtocolError):
        storage.undoLog()
    assert "cannot apply" in caplog.text


def test_a_line_that_cannot_be_read(peer: Peer, opened: Open) -> None:
    peer.script["undoLog"] = lambda link, request: link.send(link.reply(request, ({"id": b"AAAAAAAAAAE="},)))
    with pytest.raises(UndoError, match="cannot be read"):
        list(opened().undo_log())
