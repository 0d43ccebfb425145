"""What a program can be told: that a database was opened, and that one is closed.

    import zeo_client.events

    zeo_client.events.subscribers.append(function)      # called with each event

An application that uses zope.event gets the same events from there: whoever has imported it hears them, and zeod does
not need it.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeo_client.db import DB

__all__ = ["DatabaseClosed", "DatabaseEvent", "DatabaseOpened", "subscribers", "tell", "tell_of_end"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DatabaseEvent:
    """Something that happened to `database`."""

    database: "DB"


class DatabaseOpened(DatabaseEvent):
    """A database was opened; it can be used. What a subscriber raises comes out of the opening, and closes it."""


class DatabaseClosed(DatabaseEvent):
    """A database was closed, with its storage. What a subscriber raises is logged."""


subscribers: list[Callable[[DatabaseEvent], object]] = []
"""Whom to tell, in this order; in the thread in which it happens."""


def tell(event: DatabaseEvent) -> None:
    """Call the subscribers, and zope.event's where the program uses that."""
    for subscriber in tuple(subscribers):
        subscriber(event)
    zope = sys.modules.get("zope.event")
    if zope is not None:
        zope.notify(event)


def tell_of_end(event: DatabaseEvent) -> None:
    """Do as `tell` does; what is raised is only logged, since what the event tells of has happened."""
    try:
        tell(event)
    except Exception:
        logger.exception("a subscriber of %s failed", type(event).__name__)
