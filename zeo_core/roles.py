"""What a client may do on a storage: the roles that the table of RPC methods asks for and a server's rules give."""

from enum import IntEnum

__all__ = ["ClientRole"]


class ClientRole(IntEnum):
    """A role; each may do what those before it may."""

    READER = 1
    """Load, and learn of changes."""

    WRITER = 2
    """Commit. Nothing that is done with it is out of reach of undo: the log keeps what was there before."""

    ADMIN = 3
    """Do what works on the log itself or goes past the checks of a commit: pack, undo, restore and delete objects."""

    def __str__(self) -> str:
        return self.name.lower()
