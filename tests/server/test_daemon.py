"""The daemon's parts that need no process of their own; tests/server/cli/test_zeod.py runs it whole."""

import asyncio
from pathlib import Path

import pytest

from tests.fixtures_zeod import StartZeod
from tests.server.in_process import in_process
from zeo_core.errors import ConfigurationError, StorageClosedError
from zeo_core.ids import ROOT_OID, ZERO_TID
from zeo_server.config import Configuration, file_storage
from zeo_server.daemon import banner, new_event_loop, run, serve
from zeo_server.listener import Address
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


@pytest.mark.parametrize(
    ("address", "where", "url"),
    [
        (("127.0.0.1", 9672), "127.0.0.1:9672", "zeo://127.0.0.1:9672"),
        (("", 9672), ":9672", "zeo://localhost:9672"),
        (("::1", 9672), "[::1]:9672", "zeo://[::1]:9672"),
        ("/run/zeod.sock", "/run/zeod.sock", "zeo:///run/zeod.sock"),
    ],
)
def test_the_banner_says_what_is_served_and_how_to_connect(address: Address, where: str, url: str) -> None:
    line = banner({"1": "Data.fs", "temp": "in memory"}, address)
    assert line.startswith("zeod ")
    assert line.endswith(f'serves 1 (Data.fs), temp (in memory) on {where}; connect with zeo_client.open("{url}")')


def test_uvloop_where_it_is_installed() -> None:
    loop = new_event_loop()()
    assert type(loop).__module__.startswith("uvloop")
    loop.close()


def test_clients_that_come_back_after_a_restart_are_told_what_they_missed(tmp_path: Path) -> None:
    path = str(tmp_path / "Data.fs")
    with in_process({"1": FileStorage(path)}) as server, server.client() as client:
        first = client.commit({ROOT_OID: (ZERO_TID, b"one")})
        last = client.commit({ROOT_OID: (first, b"two")})
    with in_process({"1": FileStorage(path)}) as server, server.client() as client:
        assert client.call("getInvalidations", first) == (last, (ROOT_OID,))
        assert client.call("getInvalidations", last) == (last, ())


async def test_an_address_in_use_leaves_nothing_running(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    configuration = Configuration(path, ())
    listener, service = await serve(configuration, {"1": MappingStorage()})
    tasks = len(asyncio.all_tasks())
    with pytest.raises(ConfigurationError, match="already in use"):
        await serve(configuration, {"1": MappingStorage()})
    assert len(asyncio.all_tasks()) == tasks
    listener.close()
    await service.stop()


def test_storages_are_closed_when_a_later_one_cannot_be_opened(tmp_path: Path) -> None:
    opened: list[FileStorage] = []

    def remember() -> FileStorage:
        opened.append(FileStorage(str(tmp_path / "A.fs")))
        return opened[0]

    good = file_storage("1", str(tmp_path / "A.fs"))
    good = type(good)(good.name, good.what, remember)
    bad = file_storage("2", str(tmp_path / "nowhere" / "B.fs"))
    with pytest.raises(ConfigurationError, match=r"cannot open storage 2: .*nowhere/B\.fs"):
        run(Configuration(("127.0.0.1", 0), (good, bad)), print)
    with pytest.raises(StorageClosedError):
        opened[0].load_before(ROOT_OID, ZERO_TID)


@pytest.mark.parametrize(
    ("address", "more", "warned"),
    [("0.0.0.0:0", "", True), ("0.0.0.0:0", "private-network yes", False), ("127.0.0.1:0", "", False)],
)
def test_a_server_in_the_clear_that_others_can_reach_says_so(
    start_zeod: StartZeod, tmp_path: Path, address: str, more: str, warned: bool
) -> None:
    (tmp_path / "zeo.conf").write_text(
        f"<zeo>\naddress {address}\n{more}\n</zeo>\n<mappingstorage>\n</mappingstorage>\n"
    )
    server = start_zeod("-C", "zeo.conf")
    server.stop()
    assert server.log_text().count("other machines can reach this address") == warned
