"""Transactions that are tried again, and those that are not."""

from collections.abc import Callable
from typing import Any

import pytest
from transaction.interfaces import DoomedTransaction, TransientError

from tests.client.objects import Node
from zeo_client.attempts import DEFAULT_ATTEMPTS, Attempts, pause_s
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_core.errors import ClientDisconnected, CommitInDoubtError, ConflictError, StorageError
from zeo_core.transaction import extension_map
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture
def conflicting(db: DB) -> Callable[[Connection, int], None]:
    """Let the next `times` transactions that change the root's "a" meet one that was faster."""
    with db.transaction() as conn:
        conn.root.a = 0
    met = 0

    def conflict(conn: Connection, times: int) -> None:
        nonlocal met
        conn.root.a += 10
        met += 1
        if met <= times:
            with db.transaction() as other:
                other.root.a += 1

    return conflict


def value(db: DB) -> int:
    with db.transaction() as conn:
        return int(conn.root.a)


def test_run_tries_again_after_a_conflict(db: DB, conflicting: Callable[[Connection, int], None]) -> None:
    def work(conn: Connection) -> str:
        conflicting(conn, 2)
        return "done"

    assert db.run(work) == "done"
    assert value(db) == 12
    assert db.pool.everything()
    assert all(conn.opened is None for conn in db.pool.everything())


def test_run_gives_up_after_the_last_attempt(db: DB, conflicting: Callable[[Connection, int], None]) -> None:
    with pytest.raises(ConflictError):
        db.run(lambda conn: conflicting(conn, 99))
    assert value(db) == DEFAULT_ATTEMPTS
    with pytest.raises(ConflictError):
        db.run(lambda conn: conflicting(conn, 99), attempts=1)
    assert value(db) == DEFAULT_ATTEMPTS + 1


def test_a_loop_tries_again_after_a_conflict(db: DB, conflicting: Callable[[Connection, int], None]) -> None:
    runs = 0
    for attempt in db.transaction(attempts=5):
        with attempt as conn:
            runs += 1
            conflicting(conn, 3)
    assert runs == 4
    assert value(db) == 13


def test_a_loop_whose_last_attempt_fails_lets_the_error_out(
    db: DB, conflicting: Callable[[Connection, int], None]
) -> None:
    runs: list[int] = []

    def work(conn: Connection) -> None:
        runs.append(1)
        conflicting(conn, 99)

    with pytest.raises(ConflictError):
        loop(db, work)
    assert len(runs) == DEFAULT_ATTEMPTS


def loop(db: DB, work: Callable[[Connection], None]) -> None:
    for attempt in db.transaction():
        with attempt as conn:
            work(conn)


@pytest.mark.parametrize("error", [ConflictError(), ClientDisconnected(), TransientError()], ids=repr)
def test_a_transient_error_of_the_block_is_tried_again(db: DB, error: Exception) -> None:
    runs = 0
    for attempt in db.transaction():
        with attempt as conn:
            conn.root.a = runs
            runs += 1
            if runs == 1:
                raise error
    assert value(db) == 1


@pytest.mark.parametrize("error", [ValueError("of the program"), CommitInDoubtError("x", "y"), KeyboardInterrupt()])
def test_other_errors_come_out_at_once(db: DB, error: BaseException) -> None:
    runs = 0

    def work(conn: Connection) -> None:
        nonlocal runs
        runs += 1
        conn.root.a = 1
        raise error

    with pytest.raises(type(error)):
        db.run(work)
    assert runs == 1
    with db.transaction() as conn:
        assert "a" not in conn.root()


class Doubtful(MappingStorage):
    """Commits and then loses its reply, once it is told to."""

    doubtful = False

    def tpc_finish(self, transaction: Any, announce: Any = None) -> Any:
        tid = super().tpc_finish(transaction, announce)
        if self.doubtful:
            self.doubtful = False
            raise CommitInDoubtError("the server", "told to")
        return tid


class Asking:
    """A resource that would have everything tried again."""

    transaction_manager = None

    def abort(self, _transaction: object) -> None:
        """Do nothing."""

    tpc_begin = commit = tpc_vote = tpc_finish = tpc_abort = abort

    def sortKey(self) -> str:  # noqa: N802
        return "~"

    def should_retry(self, error: BaseException) -> bool:
        assert error is not None
        return True


def test_a_commit_in_doubt_is_not_repeated() -> None:
    storage = Doubtful()
    with DB(storage) as db:

        def work(conn: Connection) -> None:
            conn.transaction_manager.get().join(Asking())
            conn.root.a = conn.root().get("a", 0) + 1

        storage.doubtful = True
        with pytest.raises(CommitInDoubtError):
            db.run(work)
        assert value(db) == 1


def test_a_resource_may_ask_for_another_attempt(db: DB) -> None:
    runs = 0

    def work(conn: Connection) -> int:
        nonlocal runs
        runs += 1
        conn.transaction_manager.get().join(Asking())
        if runs < 3:
            raise StorageError("the other resource's")
        return runs

    assert db.run(work) == 3


def test_a_doomed_transaction_is_not_tried_again(db: DB) -> None:
    runs: list[int] = []

    def work(conn: Connection) -> None:
        runs.append(1)
        conn.transaction_manager.doom()

    with pytest.raises(DoomedTransaction):
        loop(db, work)
    assert len(runs) == 1


def test_a_with_block_cannot_run_twice(db: DB) -> None:
    with pytest.raises(TypeError, match="cannot run twice"), db.transaction(attempts=3):
        pass
    once = db.transaction()
    with once as conn:
        conn.root.a = 1
    with pytest.raises(TypeError, match="has been used"), once:
        pass
    with pytest.raises(ValueError, match="at least 1"):
        db.transaction(attempts=0)


def test_each_attempt_begins_with_the_newest_state_and_no_changes(db: DB) -> None:
    seen = []
    with db.transaction() as conn:
        conn.root.node = Node(x=0)
    for attempt in db.transaction():
        with attempt as conn:
            seen.append(conn.root.node.x)
            conn.root.node.x += 10
            if len(seen) == 1:
                with db.transaction() as other:
                    other.root.node.x += 1
    assert seen == [0, 1]


def test_a_transaction_is_described(db: DB, storage: MappingStorage) -> None:
    describe = {"note": "a note", "user": "ann", "extension": {"ticket": 7}}
    with db.transaction(**describe) as conn:  # type: ignore[arg-type]
        conn.root.a = 1
    db.run(lambda conn: setattr(conn.root, "a", 2), **describe)  # type: ignore[arg-type]
    for recorded in list(storage.transactions())[-2:]:
        metadata = recorded.metadata
        assert (metadata.user, metadata.description) == (b"ann", b"a note")
        assert extension_map(metadata.extension) == {"ticket": 7}


def test_a_description_that_is_refused_leaves_no_connection_open(db: DB) -> None:
    with pytest.raises(AttributeError), db.transaction(extension=5):  # type: ignore[arg-type]
        pass
    assert all(conn.opened is None for conn in db.pool.everything())


def test_hooks_of_the_transaction_run(db: DB) -> None:
    told: list[object] = []
    with db.transaction() as conn:
        begun = conn.transaction_manager.get()
        begun.addBeforeCommitHook(lambda: setattr(conn.root, "a", 1))
        begun.addAfterCommitHook(told.append)
    with db.transaction() as conn:
        begun = conn.transaction_manager.get()
        begun.addAfterAbortHook(lambda: told.append("aborted"))
        begun.abort()
    assert told == [True, "aborted"]
    assert value(db) == 1


def test_a_pause_grows_and_is_left_to_chance() -> None:
    assert pause_s(3, 0.5) == 2 * pause_s(2, 0.5) == 4 * pause_s(1, 0.5)
    assert pause_s(1, 0) == 0
    assert pause_s(1, 0.5) < pause_s(1, 0.9) < 0.01
    assert pause_s(100_000, 0.9) < 1


def test_attempts_are_what_a_db_gives(db: DB) -> None:
    assert isinstance(db.transaction(), Attempts)
