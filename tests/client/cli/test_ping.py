import json

from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod


def test_how_long_a_server_takes(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    status, out, _ = zeo("ping", "-c", 3, "-i", 0, server.url)
    assert status == 0
    assert [line.split()[1] for line in out.splitlines()[:3]] == ["answer"] * 3
    assert out.splitlines()[3].startswith("fastest ")


def test_as_json(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    status, out, _ = zeo("ping", "-c", 3, "-i", 0, "--json", server.url)
    assert status == 0
    told = json.loads(out)
    assert len(told["answers_ms"]) == 3
    assert told["fastest"] <= told["median"] <= told["slowest"]


def test_a_storage_that_is_not_there(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    status, out, error = zeo("ping", f"{server.url}/other")
    assert (status, out) == (2, "")
    assert "unknown storage: other" in error
