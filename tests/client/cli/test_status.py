import json

import pytest

from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.place import parse_place
from zeo_client.cli.status import chosen, time_of
from zeo_core.errors import ConfigurationError
from zeo_core.ids import tid_from_time


def test_figures_of_all_storages_side_by_side(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "One.fs", "-f", "Two.fs")
    status, out, _ = zeo("status", server.url)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["1", "2"]
    assert ["loads", "0", "0"] in [line.split() for line in lines]
    assert "(never)" in out
    status, out, _ = zeo("status", "--json", f"{server.url}/2")
    assert set(json.loads(out)) == {"2"}


def test_what_is_not_there_is_told_in_a_line(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "One.fs")
    status, out, error = zeo("status", f"{server.url}/other")
    assert (status, out) == (2, "")
    assert error.endswith("no storage 'other' there, but 1\n")
    server.stop()
    status, out, error = zeo("status", server.url)
    assert (status, out) == (2, "")
    assert error.startswith("zeo: ")
    assert error.count("\n") == 1
    assert zeo("status", "nowhere")[0] == 2


def test_a_storage_is_chosen() -> None:
    assert chosen({"1": {}, "2": {}}, parse_place("1234")) == {"1": {}, "2": {}}
    with pytest.raises(ConfigurationError, match="'3' there, but 1, 2"):
        chosen({"1": {}, "2": {}}, parse_place("zeo://localhost/3"))


def test_a_transactions_time() -> None:
    assert time_of(tid_from_time(0).hex()).startswith(("1970-01-01", "1969-12-31"))
    assert time_of("0" * 16) == "never"
    assert time_of("no tid") == "no tid"
