"""The command, as a user runs it: real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures_zeod import StartZeod
from tests.server.raw_client import RawClient
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id


def refused(directory: Path, *args: str) -> str:
    """Run a zeod that cannot start and return what it says."""
    command = [sys.executable, "-m", "zeo_server.cli.zeod", *args]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("zeod: ")
    return lines[0]


def test_serves_a_file_and_says_so(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    assert server.banner.startswith("zeod 0.")
    assert "serves 1 (Data.fs) on 127.0.0.1:" in server.banner
    assert server.url == "zeo://{}:{}".format(*server.address)
    with RawClient(server.address) as client:
        tid = client.commit({ROOT_OID: (ZERO_TID, b"hello")})
        assert client.load(ROOT_OID) == (b"hello", tid, None)
    assert server.stop() == 0
    assert (tmp_path / "Data.fs.index").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_in_order_and_starts_again(start_zeod: StartZeod, number: signal.Signals) -> None:
    server = start_zeod("-f", "Data.fs")
    with RawClient(server.address) as client:
        tid = client.commit({ROOT_OID: (ZERO_TID, b"hello")})
        assert server.stop(number) == 0
    again = start_zeod("-f", "Data.fs")
    with RawClient(again.address) as client:
        assert client.last_tid == tid
        assert client.load(ROOT_OID) == (b"hello", tid, None)


def test_a_voted_transaction_is_finished_before_the_server_stops(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    with RawClient(server.address) as client, RawClient(server.address) as idle:
        client.begin(1, {ROOT_OID: (ZERO_TID, b"hello")})
        client.call("vote", 1)
        server.process.send_signal(signal.SIGTERM)
        idle.wait_closed()  # it had nothing voted
        tid = client.call("tpc_finish", 1)
    assert server.stop() == 0
    with RawClient(start_zeod("-f", "Data.fs").address) as client:
        assert client.load(ROOT_OID) == (b"hello", tid, None)


def test_several_files_are_storages_1_2_and_on(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "A.fs", "-f", "B.fs")
    with RawClient(server.address, "1") as first, RawClient(server.address, "2") as second:
        first.commit({ROOT_OID: (ZERO_TID, b"first")})
        assert second.last_tid == ZERO_TID
        assert first.call("get_info")["name"].endswith("A.fs")
        assert second.call("get_info")["name"].endswith("B.fs")
        assert second.invalidations() == []


def test_a_unix_socket(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    assert server.url == f"zeo://{tmp_path}/zeod.sock"
    with RawClient(str(tmp_path / "zeod.sock")) as client:
        client.call("ping")
    assert f"process {os.getpid()} of user" in server.log_text()
    assert server.stop() == 0
    assert not (tmp_path / "zeod.sock").exists()


def test_the_socket_of_a_killed_server_is_taken_over(start_zeod: StartZeod, tmp_path: Path) -> None:
    start_zeod("-f", "Data.fs", "-a", "./zeod.sock").kill()
    assert (tmp_path / "zeod.sock").exists()
    with RawClient(start_zeod("-f", "Data.fs", "-a", "./zeod.sock").address) as client:
        client.call("ping")


def test_a_configuration_file_and_its_pid_file(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text("""
        %define here .
        <zeo>
            address 127.0.0.1:0
            pid-filename $here/zeo.pid
            monitor-address 8101
        </zeo>
        <filestorage main>
            path $here/Data.fs
        </filestorage>
        <mappingstorage temp>
        </mappingstorage>
        <eventlog>
            <logfile>
                path $here/zeo.log
            </logfile>
        </eventlog>
        <runner>
            program $here/bin/runzeo
        </runner>
    """)
    server = start_zeod("-C", "zeo.conf")
    assert (tmp_path / "zeo.pid").read_text() == f"{server.pid}\n"
    with RawClient(server.address, "main"), RawClient(server.address, "temp"):
        pass
    assert server.stop() == 0
    assert not (tmp_path / "zeo.pid").exists()
    log = (tmp_path / "zeo.log").read_text()
    assert "monitor-address has no effect" in log
    assert "listening on 127.0.0.1:" in log
    assert "terminated by SIGTERM" in log
    assert server.log_text() == ""


def test_the_command_line_overrides_the_file(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text("<zeo>\naddress 1\n</zeo>\n<mappingstorage>\n</mappingstorage>\n")
    server = start_zeod("-C", "zeo.conf", "-a", "127.0.0.1:0", "-f", "Data.fs", "-t", "5", "--pid-file", "pid")
    assert "serves 1 (Data.fs)" in server.banner
    assert (tmp_path / "pid").exists()


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path, "-a", f"127.0.0.1:{port}", "-f", "Data.fs")
    assert said == f"zeod: cannot listen on 127.0.0.1:{port}: the address is already in use"


def test_a_unix_socket_in_use(start_zeod: StartZeod, tmp_path: Path) -> None:
    start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    said = refused(tmp_path, "-f", "Other.fs", "-a", "./zeod.sock")
    assert said == "zeod: cannot listen on ./zeod.sock: the address is already in use"


def test_a_locked_file(start_zeod: StartZeod, tmp_path: Path) -> None:
    start_zeod("-f", "Data.fs")
    said = refused(tmp_path, "-f", "Data.fs", "-a", "127.0.0.1:0")
    assert "cannot open storage 1: " in said
    assert "Data.fs" in said
    assert "in use by another process" in said


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_text("To whom it may concern:\n" * 10)
    said = refused(tmp_path, "-f", "Data.fs", "-a", "127.0.0.1:0")
    assert "cannot open storage 1: " in said
    assert "Data.fs" in said


def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").mkdir()
    assert "Data.fs" in refused(tmp_path, "-f", "Data.fs", "-a", "127.0.0.1:0")


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    said = refused(tmp_path, "-f", "nowhere/Data.fs", "-a", "127.0.0.1:0")
    assert "cannot open storage 1: " in said
    assert "nowhere/Data.fs" in said


def test_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text("<zeo>\naddress 0\nadress 1\n</zeo>\n<mappingstorage>\n</mappingstorage>\n")
    said = refused(tmp_path, "-C", "zeo.conf")
    assert said == f"zeod: {tmp_path}/zeo.conf, line 3: 'adress' is not a known key name"


def test_a_configuration_file_that_is_missing(tmp_path: Path) -> None:
    assert "zeo.conf" in refused(tmp_path, "-C", "zeo.conf")


def test_an_address_that_is_none(tmp_path: Path) -> None:
    assert "localhost" in refused(tmp_path, "-a", "localhost", "-f", "Data.fs")


def test_a_host_that_is_unknown(tmp_path: Path) -> None:
    assert "no.such.host.invalid:9672" in refused(tmp_path, "-a", "no.such.host.invalid:9672", "-f", "Data.fs")


def write_configuration(directory: Path, *lines: str, timeout: float = 30, port: int = 0, log: str = "") -> None:
    logging = f"<eventlog>\n<logfile>\npath {log}\nformat %(message)s\n</logfile>\n</eventlog>\n" if log else ""
    zeo = f"<zeo>\naddress 127.0.0.1:{port}\ntransaction-timeout {timeout}\n</zeo>\n"
    text = "\n".join([zeo, "<filestorage 1>", f"path {directory}/Data.fs", *lines, "</filestorage>", logging])
    (directory / "zeo.conf").write_text(text)


def checked(directory: Path, *args: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "zeo_server.cli.zeod", "--check", *args]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=30)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_check_prints_the_limits_that_differ_from_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text(
        "<zeo>\naddress 127.0.0.1:0\nmax-blob-size 1GB\nmax-clients 10000\n</zeo>\n"
        "<mappingstorage>\n</mappingstorage>\n"
    )
    status, lines = checked(tmp_path, "-C", "zeo.conf")
    assert status == 0
    assert [line for line in lines if "limit" in line] == ["note: a limit of its own: max-blob-size 1073741824"]


def test_check_says_whether_it_would_start(start_zeod: StartZeod, tmp_path: Path) -> None:
    write_configuration(tmp_path, "packer whatever")
    status, lines = checked(tmp_path, "-C", "zeo.conf")
    assert status == 0
    assert lines[0].startswith("note: ")
    assert "packer" in lines[0]
    assert lines[-1] == "zeod would start"
    assert not (tmp_path / "Data.fs").exists()
    server = start_zeod("-f", "Data.fs")
    status, lines = checked(tmp_path, "-C", "zeo.conf")
    assert status == 0
    assert f"process {server.pid}" in lines[-2]
    assert lines[-1] == "zeod would start when these are free"
    write_configuration(tmp_path, "path nowhere/Data.fs")
    status, lines = checked(tmp_path, "-C", "zeo.conf")
    assert status == 1
    status, lines = checked(tmp_path, "-f", "zeo.conf")
    assert status == 1
    assert lines[-2].startswith("fault: storage 1: ")
    assert lines[-1] == "zeod: would not start"


def wait_for(seen: Callable[[], bool]) -> None:
    """Wait until `seen`, which another process brings about."""
    deadline_s = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_sighup_reads_the_configuration_anew(start_zeod: StartZeod, tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    write_configuration(tmp_path, log=str(first))
    server = start_zeod("-C", "zeo.conf")
    with RawClient(server.address) as voter:
        voter.begin(1, {ROOT_OID: (ZERO_TID, b"hello")})
        voter.call("vote", 1)
        write_configuration(tmp_path, "nonsense yes", log=str(second))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the configuration stays as it was" in first.read_text())
        write_configuration(tmp_path, timeout=0.1, port=1, log=str(second))
        server.process.send_signal(signal.SIGHUP)
        voter.wait_closed()  # the new timeout holds for a vote that was granted before
    wait_for(lambda: "configuration reloaded" in second.read_text())
    text = second.read_text()
    assert "address cannot change while zeod serves" in text
    assert "Transaction timeout after 0.1 seconds" in text
    with RawClient(server.address) as client:
        assert client.commit({ROOT_OID: (ZERO_TID, b"hello")})


@pytest.mark.parametrize("age", ["invalidation-age 3600", ""])
def test_what_a_client_missed_is_read_from_the_storage_if_the_age_says_so(
    start_zeod: StartZeod, tmp_path: Path, age: str
) -> None:
    text = f"<zeo>\naddress 127.0.0.1:0\ninvalidation-queue-size 2\n{age}\n</zeo>\n"
    (tmp_path / "zeo.conf").write_text(f"{text}<filestorage>\npath {tmp_path}/Data.fs\n</filestorage>\n")
    server = start_zeod("-C", "zeo.conf")
    oids = [pack_id(number) for number in range(1, 6)]
    with RawClient(server.address) as client:
        tids = [client.commit({oid: (ZERO_TID, b"data")}) for oid in oids]
        assert client.call("getInvalidations", tids[-2]) == (tids[-1], (oids[-1],))
        answer = client.call("getInvalidations", tids[0])
        if age:
            assert answer[0] == tids[-1]
            assert set(answer[1]) == set(oids[1:])
        else:
            assert answer is None


def test_sighup_without_a_file_changes_nothing(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "there is no configuration file" in server.log_text())
    with RawClient(server.address) as client:
        assert client.commit({ROOT_OID: (ZERO_TID, b"hello")})


def test_sigusr2_opens_the_log_anew(start_zeod: StartZeod, tmp_path: Path) -> None:
    log = tmp_path / "zeo.log"
    write_configuration(tmp_path, log=str(log))
    server = start_zeod("-C", "zeo.conf")
    log.rename(tmp_path / "zeo.log.1")
    server.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: log.exists() and "log files reopened" in log.read_text())
    assert server.stop() == 0
    assert "terminated by SIGTERM" in log.read_text()
    assert "listening on" in (tmp_path / "zeo.log.1").read_text()


def test_log_lines_have_runzeos_names_and_words(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text(
        "<zeo>\naddress 127.0.0.1:0\ntransaction-timeout 1\n</zeo>\n<mappingstorage>\n</mappingstorage>\n"
    )
    server = start_zeod("-C", "zeo.conf")
    with RawClient(server.address) as client:
        client.one_way("tpc_begin", 1, "", "", {}, None, " ")
        client.call("vote", 1)
        client.wait_closed()
    assert server.stop() == 0
    for words in (
        "INFO ZEO.runzeo listening on",
        "INFO ZEO.runzeo terminated by SIGTERM",
        "INFO ZEO.StorageServer 127.0.0.1",
        "CRITICAL ZEO.StorageServer 1: Transaction timeout after 1 seconds",
    ):
        assert words in server.log_text()


def test_a_service_manager_hands_over_a_socket_and_is_told(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        # as a service manager does between fork and exec
        start = (
            f"import os, sys; os.dup2({listening.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid());"
            " os.execv(sys.executable, [sys.executable, '-m', 'zeo_server.cli.zeod', '-f', 'Data.fs'])"
        )
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "LISTEN_FDS": "1",
            "WATCHDOG_USEC": "200000",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", start],
            cwd=tmp_path,
            env=environment,
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            host, port = listening.getsockname()
            assert manager.recv(1000) == f"READY=1\nSTATUS=listening on {host}:{port}".encode()
            assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            with RawClient((host, port)) as client:
                assert client.commit({ROOT_OID: (ZERO_TID, b"hello")})
            process.terminate()
            while (told := manager.recv(1000)) == b"WATCHDOG=1":
                pass
            assert told == b"STOPPING=1"
        finally:
            process.terminate()
            assert process.wait(30) == 0
