"""An open file of a blob."""

from io import FileIO
from typing import Any, NoReturn

__all__ = ["BlobFile"]


class BlobFile(FileIO):
    """A Blob's file, open; the Blob knows of it until it is closed or forgotten. Best used as `with blob.open():`."""

    def __init__(self, path: str, mode: str, blob: Any) -> None:
        """Open the file at `path` for `blob`, whose `closed(file)` is called when it is closed."""
        super().__init__(path, mode + "b")
        self.blob = blob

    def close(self) -> None:
        """Close the file."""
        self.blob.closed(self)
        super().close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open blob file cannot be pickled; store the Blob")
