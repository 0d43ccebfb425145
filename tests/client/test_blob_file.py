"""Open blob files: what they tell their blob, and that they are no data."""

import copy
from pathlib import Path
from typing import Any

import pytest

from zeo_client.blob_file import BlobFile


class Listener:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def closed(self, file: Any) -> None:
        self.heard.append(file)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def test_it_is_a_binary_file_that_tells_when_it_is_closed(tmp_path: Path, listener: Listener) -> None:
    with BlobFile(str(tmp_path / "file"), "w", listener) as file:
        file.write(b"data")
        assert (file.mode, listener.heard) == ("wb", [])
    assert listener.heard[0] is file
    assert (tmp_path / "file").read_bytes() == b"data"


def test_it_cannot_be_pickled_or_copied(tmp_path: Path, listener: Listener) -> None:
    with BlobFile(str(tmp_path / "file"), "w", listener) as file, pytest.raises(TypeError, match="store the Blob"):
        copy.deepcopy(file)
