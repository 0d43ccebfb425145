"""The plug-in's output and exit statuses, and the same words as ZEO's own plug-in prints."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.client.cli.commands import zeo
from tests.client.peer import until
from tests.fixtures_zeod import StartZeod
from tests.server.raw_client import RawClient
from tests.server.relay import commit, relaying
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id


def peers(*args: object) -> tuple[int, str]:
    """Run the check that comes with ZEO."""
    code = "import sys; from ZEO.nagios import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_an_empty_storage_is_a_warning_and_data_are_ok(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    where = "{}:{}".format(*server.address)
    assert zeo("nagios", where)[:2] == (1, "Empty storage '1'\n") == peers(where)
    with RawClient(server.address) as client:
        client.commit({ROOT_OID: (ZERO_TID, b"data")})
    assert zeo("nagios", where)[:2] == (0, "OK\n") == peers(where)
    assert zeo("nagios", "-m", where)[:2] == peers("-m", where)


def test_no_server_is_critical(tmp_path: Path) -> None:
    status, out, _ = zeo("nagios", tmp_path / "no.sock")
    assert status == 2
    assert out.startswith("Can't connect ")
    assert str(tmp_path) in out


def test_rates_are_told_from_the_second_time_on(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    kept = tmp_path / "kept"
    with RawClient(server.address) as client:
        client.commit({ROOT_OID: (ZERO_TID, b"data")})
        assert "commits=" not in zeo("nagios", "-m", "-s", kept, server.url)[1]
        before_s = kept.stat().st_mtime - 60
        os.utime(kept, (before_s, before_s))  # a minute ago
        client.commit({pack_id(1): (ZERO_TID, b"data"), pack_id(2): (ZERO_TID, b"data")})
    status, out, _ = zeo("nagios", "-m", "-s", kept, server.url)
    assert status == 0
    assert out.startswith("OK|active_txns=0\n| connections=")
    rates = dict(line.strip(" |\n").split("=") for line in out.splitlines()[1:])
    assert 0.5 < float(rates["commits"]) <= 1
    assert 1 < float(rates["stores"]) <= 2


def test_a_kept_file_that_is_torn_or_of_another_server_is_begun_anew(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    kept = tmp_path / "kept"
    for text in ('{"1": {"loa', "[]", json.dumps({"other": {}}), json.dumps({"1": {"commits": 10**9}})):
        kept.write_text(text)
        os.utime(kept, (1e9, 1e9))
        assert "commits=" not in zeo("nagios", "-m", "-s", kept, server.url)[1]
        assert json.loads(kept.read_text())["1"]["commits"] == 0


def test_a_replica_without_its_server_is_a_warning() -> None:
    with relaying() as relay:
        tid = commit(relay.first, pack_id(1))
        relay.second.until(lambda: relay.storage.last_tid() == tid)
        where = "{}:{}".format(*relay.second.address)
        assert zeo("nagios", where)[:2] == (0, "OK\n")
        [line] = [line for line in zeo("status", where)[1].splitlines() if line.startswith("upstream last tid")]
        assert f"{tid.hex()} (" in line
        relay.proxy.refusing = True
        relay.proxy.cut()
        until(lambda: relay.storage.link.away_s())
        status, out, _ = zeo("nagios", where)
        assert (status, out) == (1, f"Storage '1' is without its server {relay.storage.link.address()}\n")
