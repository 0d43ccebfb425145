"""One live zeod for the whole suite, with a FileStorage for each test: starting one for each would take minutes."""

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fixtures_zeod import Zeod, launch
from zeo_client.storage import ClientStorage
from zeo_core.zodb import ZODBStorage

__all__ = ["RELAYED", "SERVED", "Relayed", "Served"]

STORAGES = 150
"""More than there are tests."""


class Served:
    """The server, started when the first test asks for it."""

    def __init__(self, first_number: int = 1) -> None:
        self._server: Zeod | None = None
        self._directory: TemporaryDirectory[str] | None = None
        self._numbers = itertools.count(first_number)
        self._storages: dict[Path, str] = {}

    @contextmanager
    def open(self, directory: Path) -> Iterator[ZODBStorage]:
        """Open a ClientStorage on the storage that stands for `directory`."""
        server = self.start()
        if directory not in self._storages:
            self._storages[directory] = str(next(self._numbers))
        with closing(ClientStorage(server.address, self._storages[directory], wait_timeout=20)) as storage:
            yield storage

    def stop(self) -> None:
        if self._server is not None and self._directory is not None:
            self._server.stop()
            self._directory.cleanup()
            self._server = None

    def sections(self) -> str:
        """Return the storages of the server."""
        return "".join(
            f"<filestorage {number}>\n  path {number}.fs\n</filestorage>\n" for number in range(1, 2 * STORAGES)
        )

    def start(self) -> Zeod:
        """Return the server, running."""
        if self._server is None:
            self._directory = TemporaryDirectory()
            where = Path(self._directory.name)
            (where / "zeo.conf").write_text("<zeo>\n  address ./zeod.sock\n</zeo>\n" + self.sections())
            self._server = launch(where, where / "log", "-C", "zeo.conf")
        return self._server


class Relayed(Served):
    """A second server, which serves the storages of the first on."""

    def __init__(self, first: Served) -> None:
        super().__init__(STORAGES)
        self._first = first

    def sections(self) -> str:
        """Return the storages of the second server."""
        where = self._first.start().address
        return "".join(
            f"<zeoclient {number}>\n  server {where}\n  storage {number}\n</zeoclient>\n"
            for number in range(STORAGES, 2 * STORAGES - 1)
        )


SERVED = Served()
RELAYED = Relayed(SERVED)
