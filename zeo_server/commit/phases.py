"""The phases of a transaction on the server, as a table.

    BEGUN --vote--> WAITING --grant--> VOTED --finish--> FINISHING --written--> COMMITTED
      |              |  A                |                   |
      |       conflict  vote             |                   |
      |              V  |                |                   |
      |            RESOLVING             |                   |
      +----- abort or refusal (conflict, timeout, lost client) or a failed write ----> ABORTED

A transaction holds places in the queues of its objects from WAITING on, and the locks themselves from VOTED on. It
holds them, too, while its client is RESOLVING conflicts: so the second vote finds no new ones.
FINISHING cannot be aborted: the writer's thread has the transaction, and only it knows whether it is on disk. A client
that goes away in that phase has its transaction finished without it (lesson B17).
"""

import enum
from collections.abc import Mapping

from zeo_core.errors import StorageTransactionError

__all__ = ["ENDED", "IN_DOUBT", "TRANSITIONS", "Phase", "Step", "advance"]


class Phase(enum.Enum):
    """Where a transaction is between tpc_begin and its end."""

    BEGUN = "begun"
    WAITING = "waiting for its locks"
    RESOLVING = "having conflicts resolved by its client"
    VOTED = "voted"
    FINISHING = "finishing"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Step(enum.Enum):
    """What moves a transaction on."""

    STAGE = "store"  # another object or check, from the client
    VOTE = "vote"  # from the client
    GRANT = "grant"  # all locks are held and every serial is the committed one
    CONFLICT = "conflict"  # all locks are held, and the client is asked to resolve conflicts
    REFUSE = "refuse"  # a conflict, or an error remembered from a one-way call
    FINISH = "finish"  # from the client
    WRITTEN = "written"  # the group is on disk and published
    FAILED = "failed"  # the group is not on disk
    ABORT = "abort"  # from the client, or in its name: timeout, lost connection


TRANSITIONS: Mapping[Phase, Mapping[Step, Phase]] = {
    Phase.BEGUN: {Step.STAGE: Phase.BEGUN, Step.VOTE: Phase.WAITING, Step.ABORT: Phase.ABORTED},
    Phase.WAITING: {
        Step.GRANT: Phase.VOTED,
        Step.CONFLICT: Phase.RESOLVING,
        Step.REFUSE: Phase.ABORTED,
        Step.ABORT: Phase.ABORTED,
    },
    Phase.RESOLVING: {Step.STAGE: Phase.RESOLVING, Step.VOTE: Phase.WAITING, Step.ABORT: Phase.ABORTED},
    Phase.VOTED: {Step.FINISH: Phase.FINISHING, Step.ABORT: Phase.ABORTED},
    Phase.FINISHING: {Step.WRITTEN: Phase.COMMITTED, Step.FAILED: Phase.ABORTED},
    Phase.COMMITTED: {},
    Phase.ABORTED: {},
}
"""What each phase allows; a missing entry is the error."""

ENDED = frozenset({Phase.COMMITTED, Phase.ABORTED})
"""Nothing can happen to a transaction any more."""

IN_DOUBT = frozenset({Phase.VOTED, Phase.FINISHING})
"""The server has promised to commit, or is about to: a stopping server finishes these first."""


def advance(phase: Phase, step: Step) -> Phase:
    """Return the phase after `step`; StorageTransactionError if `phase` does not allow it."""
    try:
        return TRANSITIONS[phase][step]
    except KeyError:
        raise StorageTransactionError(f"{step.value} is not possible: the transaction is {phase.value}") from None
