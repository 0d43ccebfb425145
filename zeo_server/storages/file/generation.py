"""What a storage reads from: one file under the name Data.fs, from an opening or a pack until the next pack.

A pack moves every record, so that a position found in the index of one file means nothing in another. Whoever loads
takes the generation once, looks into its index and reads with its reader; a load under way during a switch ends on the
file that it began with (lesson B33).
"""

from zeo_core.errors import POSKeyError
from zeo_core.ids import Oid
from zeo_server.storages.file.index import Entries, Index
from zeo_server.storages.file.reader import Reader

__all__ = ["Generation", "moved_entries"]


class Generation:
    """A reader, the index that belongs to it, and where the published transactions end.

    `cached_reader` raises BlockingIOError where the reader would wait for the disk, if the system can tell.
    """

    __slots__ = ("cached_reader", "end", "index", "reader")

    def __init__(self, reader: Reader, index: Index, end: int) -> None:
        self.reader = reader
        self.cached_reader = reader.without_waiting()
        self.index = index
        self.end = end

    def place(self, oid: Oid) -> int:
        """Return where the object's newest record stands; POSKeyError if there is none."""
        position = self.index.position(oid)
        if not position:
            raise POSKeyError(oid)
        return position


def moved_entries(entries: Entries, distance: int) -> Entries:
    """Return index entries whose records a pack has moved `distance` bytes towards the start of the file."""
    return {
        prefix: {
            suffix: (int.from_bytes(position, "big") - distance).to_bytes(6, "big")
            for suffix, position in positions.items()
        }
        for prefix, positions in entries.items()
    }
