"""The contract of storages that outlive their process."""

from pathlib import Path

from tests.contract.storages import Kind, commit
from zeo_core.ids import Tid, pack_id
from zeo_core.storage import Iterates


def test_what_was_committed_is_there_again(keeping_kind: Kind, tmp_path: Path) -> None:
    tids: list[Tid] = []
    for session in range(3):
        with keeping_kind.open(tmp_path) as storage:
            for number, tid in enumerate(tids):
                assert storage.load_serial(pack_id(1), tid) == b"%d" % number
            assert storage.last_tid() == (tids[-1] if tids else bytes(8))
            tids.append(commit(storage, {pack_id(1): b"%d" % session, pack_id(session + 2): b"x"}))
    assert tids == sorted(set(tids))
    with keeping_kind.open(tmp_path) as storage:
        assert len(storage) == 4
        if isinstance(storage, Iterates):
            assert [transaction.tid for transaction in storage.transactions()] == tids


def test_oids_that_were_stored_are_not_given_again(keeping_kind: Kind, tmp_path: Path) -> None:
    stored = []
    for _ in range(3):
        with keeping_kind.open(tmp_path) as storage:
            oid = storage.new_oid()
            assert oid not in stored
            commit(storage, {oid: b"x"})
            stored.append(oid)


def test_an_aborted_transaction_is_not_there_again(keeping_kind: Kind, tmp_path: Path) -> None:
    with keeping_kind.open(tmp_path) as storage:
        tid = commit(storage, {pack_id(1): b"kept"})
    with keeping_kind.open(tmp_path) as storage:
        assert storage.load(pack_id(1)) == (b"kept", tid)
        assert len(storage) == 1
