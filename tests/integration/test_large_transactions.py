"""Transactions that are larger than what a client may have of them in memory."""

import json
import subprocess
import sys

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod
from zeo_client.staging import MEMORY_BYTES

LIMIT_S = 300
BEYOND_BYTES = 20_000_000  # pieces on their way, the cache's 20 MB of what was in memory last, and what Python leaves


def grown_by(url: str, megabytes: int, how: str) -> int:
    command = [sys.executable, "-m", "tests.integration.large_writer", url, str(megabytes), how]
    done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=True)
    return int(json.loads(done.stdout))


def test_the_memory_of_a_writer_is_bounded(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    assert grown_by(server.url, 80, "storage") < MEMORY_BYTES + BEYOND_BYTES
    with zeo_client.open(server.url) as db:
        assert db.storage.object_count() == 8_000 + 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["storage", "objects"])
def test_the_memory_of_a_writer_of_200_megabytes_is_bounded(start_zeod: StartZeod, how: str) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    # with objects the savepoints have up to 8 MiB of them in memory, and the objects of the last one are there
    assert grown_by(server.url, 200, how) < MEMORY_BYTES + BEYOND_BYTES + (24_000_000 if how == "objects" else 0)
    with zeo_client.open(server.url) as db:
        assert db.storage.object_count() > 20_000
