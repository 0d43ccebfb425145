"""Whether a server would start: what is wrong and what is in use, and that looking changes nothing."""

import socket
from contextlib import closing
from pathlib import Path

from zeo_server.config import Configuration, file_storage
from zeo_server.preflight import Report, preflight
from zeo_server.storages.file import FileStorage


def report_of(path: Path, address: tuple[str, int] | str = ("127.0.0.1", 0), pid: str | None = None) -> Report:
    return preflight(Configuration(address, (file_storage("1", str(path)),), pid_filename=pid))


def test_nothing_is_made(tmp_path: Path) -> None:
    report = report_of(tmp_path / "Data.fs", str(tmp_path / "socket"), str(tmp_path / "pid"))
    assert report == Report()
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_bytes(b"no database")
    (tmp_path / "file").touch()
    report = report_of(tmp_path / "Data.fs", str(tmp_path / "file"), str(tmp_path / "nowhere" / "pid"))
    address, storage, pid = report.faults
    assert address.startswith("address: cannot listen on ")
    assert address.endswith("a file that is no socket has this name")
    assert storage.startswith(f"storage 1: {tmp_path}/Data.fs")
    assert pid == f"pid-filename: {tmp_path}/nowhere: no files can be made there"
    assert report.in_use == []


def test_what_a_running_server_holds_is_in_use(tmp_path: Path) -> None:
    with closing(FileStorage(tmp_path / "Data.fs")), socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        report = report_of(tmp_path / "Data.fs", ("127.0.0.1", port))
    assert report.faults == []
    address, storage = report.in_use
    assert address == f"address: somebody listens on 127.0.0.1:{port}"
    assert storage.startswith(f"storage 1: {tmp_path}/Data.fs")


def test_a_socket_with_a_listener_is_in_use(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        assert report_of(tmp_path / "Data.fs", path).in_use == [f"address: somebody listens on {path}"]


def test_the_address_of_the_metrics_is_looked_at(tmp_path: Path) -> None:
    def of(host: str, port: int) -> Report:
        return preflight(Configuration(str(tmp_path / "socket"), (), metrics_address=(host, port)))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert of("127.0.0.1", port).in_use == [f"metrics-address: somebody listens on 127.0.0.1:{port}"]
    assert of("127.0.0.1", 0) == Report()
    (fault,) = of("192.0.2.1", 0).faults  # of nobody: RFC 5737
    assert fault.startswith("metrics-address: cannot listen on 192.0.2.1:0: ")
