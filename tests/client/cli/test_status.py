import json

import pytest

from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.place import parse_place
from zeo_client.cli.status import chosen, text_of, time_of
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
    assert ["pack", "-", "-"] in [line.split() for line in lines]
    assert ["commit", "seconds", "-", "-"] in [line.split() for line in lines]
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


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("loads", 1234567, "1,234,567"),
        ("bytes_in", 2048, "2.0 KB"),
        ("index_bytes", None, "-"),
        ("pack", ["copy", 1024, 4096], "copy, 1.0 KB of 4.0 KB"),
        ("write_seconds", {"count": 2, "sum": 0.004, "p99": 0.003}, "mean 2.0 ms, 99 % up to 3.0 ms, 2 times"),
        ("group_sizes", {"count": 2, "sum": 7, "p99": 4.0}, "mean 3.5, 99 % up to 4.0, 2 times"),
        ("sync_seconds", {"count": 0, "sum": 0, "p99": None}, "-"),
    ],
)
def test_figures_are_readable(key: str, value: object, expected: str) -> None:
    assert text_of(key, value) == expected


def test_a_transactions_time() -> None:
    assert time_of(tid_from_time(0).hex()).startswith(("1970-01-01", "1969-12-31"))
    assert time_of("0" * 16) == "never"
    assert time_of("no tid") == "no tid"
