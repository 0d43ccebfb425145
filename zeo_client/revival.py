"""New objects that a rollback or an abort disowns, and that are to be whole when they have no database any more.

At a savepoint the state of a new object may be let go from memory. Without this, whoever still holds the object, to try
again with it, would find it empty afterwards, and store it empty.
"""

import logging
from collections.abc import Iterable
from typing import Any, Final

from zeo_client.savepoint import SPOOL_MEMORY_BYTES, Spool
from zeo_core.ids import Oid, oid_repr
from zeo_core.record import references

__all__ = ["REVIVED_BYTES", "revive"]

logger = logging.getLogger(__name__)

REVIVED_BYTES: Final = SPOOL_MEMORY_BYTES
"""How much of the new objects that a rollback disowns is loaded again for who still holds them."""


def revive(spool: Spool, cache: Any, oids: Iterable[Oid]) -> None:
    """Load the states of those of the new objects `oids` that were let go at a savepoint, but that somebody holds.

    What these refer to counts as held. REVIVED_BYTES bound it: the spool may be larger than the memory.
    """
    left = REVIVED_BYTES
    waiting = list(oids)
    new = set(waiting)
    while waiting:
        oid = waiting.pop()
        obj = cache.get(oid)
        if obj is None or obj._p_changed is not None:
            continue
        try:
            data, _ = spool.load(oid)
            left -= len(data)
            if left < 0:
                break
            obj._p_activate()  # noqa: SLF001 - persistent's name for it
            waiting += [each for each in references(data) if each in new]
        except Exception:
            logger.exception("cannot keep the state of the new object %s, which is rolled back", oid_repr(oid))
    if left < 0:
        logger.warning(
            "a transaction that was rolled back had more new objects than are kept: should the program still hold some"
            " that were let go at a savepoint, they are empty, and must be made anew before they are stored again"
        )
