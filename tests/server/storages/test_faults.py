import errno
import os

import pytest

from zeo_core.errors import StorageFullError
from zeo_server.storages.faults import failure


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_a_kind_of_its_own(number: int) -> None:
    error = failure("Data.fs", OSError(number, os.strerror(number)))
    assert isinstance(error, StorageFullError)
    assert "Data.fs" in str(error)
    assert os.strerror(number) in str(error)


def test_any_other_failure_names_the_file_and_the_reason() -> None:
    error = failure("Data.fs", OSError(errno.EIO, os.strerror(errno.EIO)))
    assert not isinstance(error, StorageFullError)
    assert str(error) == f"Data.fs: {os.strerror(errno.EIO)}"


def test_a_failure_without_text_still_says_something() -> None:
    assert str(failure("Data.fs", OSError("odd"))) == "Data.fs: odd"
