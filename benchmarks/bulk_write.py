"""Many new objects in one transaction, by a DB of its kind on a served storage."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transaction
import ZODB
from persistent.mapping import PersistentMapping

from benchmarks.figures import Figure, compare
from benchmarks.servers import KINDS, connect, serve
from zeo_client.db import DB

__all__ = ["figures"]


def figures(repeats: int, objects: int = 10_000) -> Iterator[Figure]:
    """Measure objects a second, from the commit's beginning to its end."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        paths = {kind: Path(directory, f"{kind}.fs").absolute() for kind in KINDS}
        with serve("zeo", paths["zeo"]) as zeo, serve("zeod", paths["zeod"]) as zeod:
            ports = {"zeo": zeo.port, "zeod": zeod.port}
            yield compare(
                f"commit {objects:,} new objects",
                "/s",
                KINDS,
                repeats,
                lambda kind: objects / _seconds(kind, ports[kind], objects),
                more_is_better=True,
            )


def _seconds(kind: str, port: int, objects: int) -> float:
    storage: Any = connect(kind, port)
    database = (ZODB.DB if kind == "zeo" else DB)(storage)
    connection = database.open()
    connection.root()["items"] = [PersistentMapping(number=number, text="x" * 200) for number in range(objects)]
    start = time.perf_counter()
    transaction.commit()
    elapsed = time.perf_counter() - start
    connection.close()
    database.close()
    return elapsed
