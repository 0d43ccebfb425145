"""The blob directory of a server, where its clients see it too: no bytes travel, only names.

A client puts a file that is to become a blob into the directory of its object, and tells the server its name, which
takes it over from there when the transaction is voted. That is the way of ZEO's clients and servers.
"""

import os

from zeo_client.blob_cache import move
from zeo_core.blob_layout import MARKER, Layout, chosen, file_name
from zeo_core.errors import POSKeyError, StorageError
from zeo_core.ids import Oid, Tid

__all__ = ["SharedBlobs"]

_TRIES = 10  # the server removes a directory that it finds empty, which may be the one just made here


class SharedBlobs:
    """The directory at `path`; it is made if the server has not done so. StorageError if it cannot be used."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.temporary = os.path.join(self.path, "tmp")
        try:
            self._layout = self._choose()
            os.makedirs(self.temporary, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{error.filename or self.path}: {error.strerror or error}") from error

    def load(self, oid: Oid, tid: Tid) -> str:
        """Return the path of a committed blob; POSKeyError if there is none: what is not here is nowhere."""
        path = os.path.join(self.path, self._layout.directory(oid), file_name(tid))
        if not os.path.exists(path):
            raise POSKeyError(oid)
        return path

    def take(self, oid: Oid, source: str) -> str:
        """Take a file over, into the directory of its object; return its new path."""
        directory = os.path.join(self.path, self._layout.directory(oid))
        tries = 1
        while True:
            os.makedirs(directory, exist_ok=True)
            try:
                return move(source, directory, "", ".tmp")
            except FileNotFoundError:
                if tries == _TRIES or not os.path.exists(source):
                    raise
            tries += 1

    def close(self) -> None:
        """Do nothing: there is nothing to end."""

    def _choose(self) -> Layout:
        """Return the layout, and mark the directory with it if it is not marked, as ZODB does."""
        marker = os.path.join(self.path, MARKER)
        os.makedirs(self.path, exist_ok=True)
        try:
            with open(marker, encoding="utf-8", errors="replace") as file:
                return chosen(self.path, file.read(100).strip(), in_use=True)
        except FileNotFoundError:
            in_use = any(not name.startswith(".") for name in os.listdir(self.path))
            layout = chosen(self.path, None, in_use=in_use)
            with open(marker, "w", encoding="ascii") as file:
                file.write(layout.name)
            return layout
