import asyncio
import os
import socket
from pathlib import Path

import pytest

from zeo_core.errors import ConfigurationError
from zeo_server.listener import Address, Listener, address_text


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hello")  # type: ignore[attr-defined]
        transport.close()


async def heard_at(address: Address) -> bytes:
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    return data


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
async def test_tcp_on_any_free_port(host: str) -> None:
    listener = await Listener.open((host, 0), Greeter)
    port = int(listener.address[1])
    assert listener.address == (host, port)
    assert port
    assert await heard_at(("127.0.0.1", port)) == b"hello"
    listener.close()
    with pytest.raises(ConnectionError):
        await heard_at(("127.0.0.1", port))


async def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1", taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{address[1]}: the address is already in use"):
            await Listener.open(address, Greeter)


async def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:9672"):
        await Listener.open(("192.0.2.1", 9672), Greeter)


async def test_a_unix_socket_comes_and_goes(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    listener = await Listener.open(path, Greeter)
    assert listener.address == path
    assert await heard_at(path) == b"hello"
    with pytest.raises(ConfigurationError, match="sock: the address is already in use"):
        await Listener.open(path, Greeter)
    assert await heard_at(path) == b"hello"
    listener.close()
    assert not os.path.exists(path)
    listener.close()


async def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listener = await Listener.open(path, Greeter)
    assert await heard_at(path) == b"hello"
    listener.close()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ConfigurationError, match="precious: a file that is no socket"):
        await Listener.open(str(path), Greeter)
    assert path.read_text() == "data"


async def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    first = await Listener.open(path, Greeter)
    os.unlink(path)
    keep = tmp_path / "keep"  # so that the file system does not give the same inode again
    keep.touch()
    second = await Listener.open(path, Greeter)
    first.close()
    assert await heard_at(path) == b"hello"
    second.close()


async def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        await Listener.open(str(tmp_path / "nowhere" / "sock"), Greeter)


def test_addresses_as_text() -> None:
    assert address_text(("127.0.0.1", 9672)) == "127.0.0.1:9672"
    assert address_text(("::1", 9672)) == "[::1]:9672"
    assert address_text(("", 9672)) == ":9672"
    assert address_text("/run/zeod.sock") == "/run/zeod.sock"


async def test_whether_other_machines_can_reach_it(tmp_path: Path) -> None:
    reached = {}
    for address in (("127.0.0.1", 0), ("localhost", 0), ("0.0.0.0", 0), ("", 0), str(tmp_path / "sock")):
        listener = await Listener.open(address, Greeter)
        reached[address] = listener.open_to_others()
        listener.close()
    assert [address for address, others in reached.items() if others] == [("0.0.0.0", 0), ("", 0)]
