"""Transactions that are tried again: what `DB.transaction` and `DB.run` stand on.

A ConflictError is nobody's fault, and the cure is to do the work again on the newer state. That takes a block that can
run twice, which a `with` block cannot; a loop can, and a function. What is tried again is decided as the transaction
package decides it: an error is retriable if it is a `transaction.interfaces.TransientError`, or if one of the resources
in the transaction says so (`should_retry(error)`). A CommitInDoubtError never is (lesson B14).
"""

import random
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import transaction as transaction_package

from zeo_core.errors import CommitInDoubtError

if TYPE_CHECKING:
    from zeo_client.connection import Connection
    from zeo_client.db import DB

__all__ = ["DEFAULT_ATTEMPTS", "Attempt", "Attempts", "pause_s"]

DEFAULT_ATTEMPTS: Final = 3
"""As in the transaction package."""

_FIRST_PAUSE_S: Final = 0.004  # about as long as a small commit takes with its conflicting neighbours
_LONGEST_PAUSE_S: Final = 1.0


def pause_s(failures: int, chance: float) -> float:
    """Return how long to wait after `failures` attempts in a row have failed; `chance` is a random number below 1.

    Twice as long, on average, after each failure. All of it is left to chance: those who met in a conflict are not to
    meet again.
    """
    longest: float = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 20))
    return longest * chance


class Attempts:
    """A transaction of its own on a DB, to be used in one of two ways.

    - `with db.transaction() as conn:`, the block of one transaction;
    - `for attempt in db.transaction(attempts=5): with attempt as conn:`, whose inner block runs until it is committed.
    """

    def __init__(
        self,
        db: "DB",
        attempts: int | None = None,
        note: str | None = None,
        user: str | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> None:
        if attempts is not None and attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts}")
        self._db = db
        self._attempts = attempts
        self._note, self._user, self._extension = note, user, extension
        self._single: Attempt | None = None

    def __enter__(self) -> "Connection":
        if self._attempts not in (None, 1):
            raise TypeError(
                "a with block cannot run twice; to try again, write"
                " `for attempt in db.transaction(attempts=...): with attempt as conn:`, or call db.run(function)"
            )
        if self._single is not None:
            raise TypeError("this transaction has been used; call db.transaction() for each")
        self._single = self._attempt(is_last=True)
        return self._single.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._single is not None:
            self._single.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator["Attempt"]:
        for wait_s, attempt in self.tries():
            if wait_s:
                time.sleep(wait_s)
            yield attempt

    def tries(self) -> Iterator[tuple[float, "Attempt"]]:
        """Yield attempts until one is committed, each with how many seconds its user is to wait before it."""
        last = self._attempts or DEFAULT_ATTEMPTS
        wait_s = 0.0
        for number in range(1, last + 1):
            attempt = self._attempt(is_last=number == last)
            yield wait_s, attempt
            if not attempt.failed:
                return
            wait_s = pause_s(number, random.random())  # noqa: S311 - not for secrets

    def _attempt(self, *, is_last: bool) -> "Attempt":
        return Attempt(self, is_last=is_last)

    def begin(self) -> "Connection":
        """Return a connection in a new transaction that is described as was asked; attempts call this."""
        connection = self._db.open(transaction_package.TransactionManager())
        try:
            begun = connection.transaction_manager.begin()
            if self._note:
                begun.note(self._note)
            if self._user is not None:
                begun.user = self._user
            for name, value in (self._extension or {}).items():
                begun.setExtendedInfo(name, value)
        except BaseException:
            connection.close()
            raise
        return connection


class Attempt:
    """One run of the block: commits at its end, or aborts and lets go of a retriable error if it is not the last."""

    def __init__(self, attempts: Attempts, *, is_last: bool) -> None:
        self.failed = False
        """Whether the block is to run once more."""
        self._attempts = attempts
        self._is_last = is_last
        self._connection: Connection | None = None
        self._manager: Any = None

    def __enter__(self) -> "Connection":
        self._connection = connection = self._attempts.begin()
        self._manager = connection.transaction_manager
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            if error is None:
                try:
                    self._manager.commit()
                except BaseException as failure:
                    if not self._give_up(failure):
                        raise
            else:
                self._give_up(error)
        finally:
            self._close()
        return self.failed

    def _give_up(self, error: BaseException) -> bool:
        """Abort; tell whether to try again."""
        # Before the abort, which lets go of the resources that are asked.
        self.failed = not self._is_last and self._is_retriable(error)
        self._manager.abort()
        return self.failed

    def _is_retriable(self, error: BaseException) -> bool:
        if isinstance(error, CommitInDoubtError) or not isinstance(error, Exception):
            return False
        # The package's own attempts ask this; it has no public name.
        return bool(self._manager._retryable(type(error), error))  # noqa: SLF001

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        # Closed within the block, it may be somebody else's by now.
        if connection is not None and connection.transaction_manager is self._manager:
            connection.close()
