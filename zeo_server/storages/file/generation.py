"""What a storage reads from: one file under the name Data.fs, from an opening or a pack until the next pack.

A pack moves every record, so that a position found in the index of one file means nothing in another. Whoever loads
takes the generation once, looks into its index and reads with its reader; a load under way during a switch ends on the
file that it began with (lesson B33).
"""

from zeo_core.errors import POSKeyError
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_server.storages.file.asof import headers
from zeo_server.storages.file.format import STATUS_UNDONE
from zeo_server.storages.file.index import Entries, Index
from zeo_server.storages.file.log import Window
from zeo_server.storages.file.reader import Reader
from zeo_server.storages.file.recover import record_positions
from zeo_server.storages.file.writer import FileGroup

__all__ = ["Generation", "moved_entries"]


class Generation:
    """A reader, the index that belongs to it, and where the published transactions end.

    `cached_reader` raises BlockingIOError where the reader would wait for the disk, if the system can tell.
    Transactions up to `moved_tid` were written when this generation's file was not yet the one in use; what stood
    behind the pack's boundary is `distance` bytes nearer to the start in this one.
    """

    __slots__ = ("cached_reader", "distance", "end", "index", "moved_tid", "reader")

    def __init__(self, reader: Reader, index: Index, end: int, *, moved_tid: Tid = ZERO_TID, distance: int = 0) -> None:
        self.reader = reader
        self.cached_reader = reader.without_waiting()
        self.index = index
        self.end = end
        self.moved_tid = moved_tid
        self.distance = distance

    def add(self, group: FileGroup) -> None:
        """Make a written group visible."""
        if not group.tids:
            return
        entries, end = group.entries, group.end
        if group.tids[-1] <= self.moved_tid:
            entries, end = moved_entries(entries, self.distance), end - self.distance
        self.index.update(entries)
        self.end = end

    def place(self, oid: Oid) -> int:
        """Return where the object's newest record stands; POSKeyError if there is none."""
        position = self.index.position(oid)
        if not position:
            raise POSKeyError(oid)
        return position

    def scan_to(self, end: int) -> None:
        """Take in the transactions that follow in the file, up to `end`."""
        window = Window(self.reader.descriptor, end)
        for header in headers(self.reader.path, window, self.end, end):
            if header.status != STATUS_UNDONE:
                self.index.update(record_positions(self.reader.path, window, header))
        self.end = end


def moved_entries(entries: Entries, distance: int) -> Entries:
    """Return index entries whose records a pack has moved `distance` bytes towards the start of the file."""
    return {
        prefix: {
            suffix: (int.from_bytes(position, "big") - distance).to_bytes(6, "big")
            for suffix, position in positions.items()
        }
        for prefix, positions in entries.items()
    }
