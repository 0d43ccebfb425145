"""Every test begins without changes in the thread's own transaction, whatever the one before it has left there."""

from collections.abc import Iterator

import pytest
import transaction

__all__ = ["nothing_begun"]


@pytest.fixture(autouse=True)
def nothing_begun() -> Iterator[None]:
    yield
    transaction.manager.clearSynchs()
    transaction.abort()
