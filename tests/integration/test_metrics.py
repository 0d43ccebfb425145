"""A real zeod, scraped over HTTP while clients work."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path

import pytest

import zeo_client
from tests.fixtures_tls import Authority
from tests.fixtures_zeod import StartZeod, Zeod
from tests.server.test_metrics import samples
from zeo_core.errors import ConfigurationError
from zeo_server.config import load

CONFIGURATION = """
<zeo>
  address 127.0.0.1:0
  metrics-address {metrics}
</zeo>
<filestorage 1>
  path {directory}/Data.fs
</filestorage>
<mappingstorage scratch>
</mappingstorage>
"""
LIMIT_S = 30


def started(start_zeod: StartZeod, directory: Path, metrics: str = "127.0.0.1:0") -> tuple[Zeod, str]:
    """Start a zeod; return it with the URL of its metrics, which its log tells."""
    (directory / "zeo.conf").write_text(CONFIGURATION.format(metrics=metrics, directory=directory))
    server = start_zeod("-C", "zeo.conf")
    found = re.search(r"metrics on (http://\S+)", server.log_text())
    assert found
    return server, found[1]


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
        text: str = answer.read().decode()
        return text


def test_a_server_is_scraped_while_it_works(start_zeod: StartZeod, tmp_path: Path) -> None:
    server, url = started(start_zeod, tmp_path)
    enough = threading.Event()

    def work() -> None:
        with zeo_client.open(server.url) as db:
            while not enough.is_set():
                with db.transaction() as conn:
                    conn.root()["key"] = time.time()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        looks = [samples(scrape(url))]
        deadline = time.monotonic() + LIMIT_S
        while looks[-1]["zeod_commits_total", "1"] < 50 and time.monotonic() < deadline:
            looks.append(samples(scrape(url)))
    finally:
        enough.set()
        worker.join()
    assert looks[-1]["zeod_commits_total", "1"] >= 50
    for earlier, later in pairwise(looks):
        for key in earlier:
            if key[0].startswith("zeod_") and key[0].endswith(("_total", "_count", "_sum")):
                assert earlier[key] <= later[key], key
    last = looks[-1]
    for name in ("zeod_commit_seconds", "zeod_finish_seconds"):
        assert last[f"{name}_count", "1"] == last["zeod_commits_total", "1"]
    assert last["zeod_sync_seconds_count", "1"] >= last["zeod_write_seconds_count", "1"] > 0
    assert last["zeod_received_bytes_total", "1"] > 0
    assert last["zeod_commits_total", "scratch"] == 0
    assert last["process_open_fds", ""] > 0
    assert server.stop() == 0


def test_sighup_leaves_the_metrics_where_they_are(start_zeod: StartZeod, tmp_path: Path) -> None:
    server, url = started(start_zeod, tmp_path)
    (tmp_path / "zeo.conf").write_text(CONFIGURATION.format(metrics="127.0.0.1:1", directory=tmp_path))
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + LIMIT_S
    while "configuration reloaded" not in server.log_text():
        assert time.monotonic() < deadline
        assert "zeod_clients" in scrape(url)
    assert "metrics-address cannot change while zeod serves: a restart is needed" in server.log_text()
    assert "zeod_clients" in scrape(url)


def test_a_busy_address_keeps_a_server_from_starting(start_zeod: StartZeod, tmp_path: Path) -> None:
    _, url = started(start_zeod, tmp_path)
    address = url.split("/")[2]
    other = tmp_path / "other"
    other.mkdir()
    (other / "zeo.conf").write_text(CONFIGURATION.format(metrics=address, directory=other))
    command = [sys.executable, "-m", "zeo_server.cli.zeod", "-C", "zeo.conf"]
    done = subprocess.run(command, cwd=other, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert done.stderr.endswith(f"zeod: cannot listen on {address}: the address is already in use\n")
    checked = subprocess.run([*command, "--check"], cwd=other, capture_output=True, text=True, timeout=LIMIT_S)
    assert f"note: metrics-address: somebody listens on {address}\n" in checked.stdout


def test_metrics_under_tls_for_those_with_a_certificate(
    start_zeod: StartZeod, tmp_path: Path, authority: Authority
) -> None:
    files = f"<ssl>\ncertificate {authority.server}\nauthenticate {authority.certificate}\n</ssl>"
    text = CONFIGURATION.replace("</zeo>", f"metrics-tls yes\n{files}\n</zeo>")
    (tmp_path / "zeo.conf").write_text(text.format(metrics="127.0.0.1:0", directory=tmp_path))
    server = start_zeod("-C", "zeo.conf")
    found = re.search(r"metrics on (https://\S+)", server.log_text())
    assert found
    silent = socket.create_connection(("127.0.0.1", int(found[1].split(":")[2].split("/")[0])))
    with silent:  # it never shakes hands, and nobody waits for it
        context = authority.context("prometheus")
        with urllib.request.urlopen(found[1], timeout=LIMIT_S, context=context) as answer:
            assert b"zeod_clients" in answer.read()
        for stranger in (authority.context(), None):
            with pytest.raises(OSError):
                urllib.request.urlopen(found[1], timeout=LIMIT_S, context=stranger).read()
        with pytest.raises((OSError, HTTPException)):
            scrape(found[1].replace("https", "http"))
    assert server.stop() == 0


def test_metrics_in_the_clear_for_everybody_are_warned_of(start_zeod: StartZeod, tmp_path: Path) -> None:
    server, _ = started(start_zeod, tmp_path)
    assert "metrics-tls" not in server.log_text()
    server.stop()
    server, _ = started(start_zeod, tmp_path, "0.0.0.0:0")
    assert "everybody who can reach it can read the metrics; see metrics-tls" in server.log_text()


def test_tls_for_metrics_needs_a_certificate(tmp_path: Path) -> None:
    text = CONFIGURATION.replace("</zeo>", "metrics-tls yes\n</zeo>")
    (tmp_path / "zeo.conf").write_text(text.format(metrics="127.0.0.1:0", directory=tmp_path))
    with pytest.raises(ConfigurationError, match="metrics-tls needs the certificate of an <ssl> section"):
        load(str(tmp_path / "zeo.conf"))
