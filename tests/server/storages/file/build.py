"""Files of known bytes, laid out here a second time and in the plainest way: a test of the writer and for readers."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from zeo_core.ids import Oid, Tid, pack_id


@dataclass
class File:
    """A Data.fs in the making. Tids count from 1; `starts` and `records` say where everything stands."""

    magic: bytes = b"FS30"
    content: bytes = b""
    starts: list[int] = field(default_factory=list)
    records: list[list[int]] = field(default_factory=list)
    current: dict[Oid, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.content = self.magic

    @property
    def last_tid(self) -> Tid:
        """The tid of the last transaction added."""
        return pack_id(len(self.starts))

    def add(
        self, *objects: tuple[Oid, bytes | int], status: bytes = b" ", metadata: Sequence[bytes] = (b"", b"", b"")
    ) -> "File":
        """Add a transaction; an object with a number in place of data gets that as its back pointer."""
        start = len(self.content)
        tid = pack_id(len(self.starts) + 1)
        position = start + 23 + sum(map(len, metadata))
        body = b""
        positions = []
        for oid, data in objects:
            positions.append(position + len(body))
            size = 0 if isinstance(data, int) else len(data)
            body += struct.pack(">8s8sQQHQ", oid, tid, self.current.get(oid, 0), start, 0, size)
            body += data.to_bytes(8, "big") if isinstance(data, int) else data
        length = position - start + len(body)
        sizes = map(len, metadata)
        header = struct.pack(">8sQcHHH", tid, length, status, *sizes)
        self.content += header + b"".join(metadata) + body + struct.pack(">Q", length)
        self.starts.append(start)
        self.records.append(positions)
        self.current.update(zip([oid for oid, _ in objects], positions, strict=True))
        return self

    def patched(self, position: int, data: bytes) -> bytes:
        """Return the content with `data` in place of what stands at `position`."""
        return self.content[:position] + data + self.content[position + len(data) :]
