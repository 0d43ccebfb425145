"""The example programs, run as a newcomer runs them: real processes, a real zeod."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PATIENCE_S = 60.0


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-u", str(EXAMPLES / script), *arguments]


def run(script: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(command(script, *arguments), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout


@contextmanager
def started(
    script: str, *arguments: str, output: Path, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside the test; it is gone when the block is left."""
    with output.open("wb") as file:
        process = subprocess.Popen(command(script, *arguments), stdin=stdin, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], *outputs: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, [output.read_text() for output in outputs]
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_hello_over_the_network(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "served.fs").url
    assert_hello(run("hello.py", url, cwd=tmp_path))
    with zeo_client.open(url) as db, db.transaction() as conn:
        assert conn.root()["oven"]["celsius"] == 1050


def test_hello_on_a_file(tmp_path: Path) -> None:
    assert_hello(run("hello.py", "Data.fs", cwd=tmp_path))


def assert_hello(output: str) -> None:
    stored, steps, oven = output.splitlines()
    assert stored == "stored  steps and oven"
    assert "'oxidize'" in steps
    assert "'minutes': 30" in oven


@pytest.mark.parametrize("served", [False, True])
def test_stock(tmp_path: Path, start_zeod: StartZeod, served: bool) -> None:
    where = ["-d", start_zeod("-f", "served.fs").url] if served else []
    stock = partial(run, "stock.py", *where, cwd=tmp_path)
    assert stock("list") == ""
    stock("add", "acetone", "10")
    stock("take", "acetone", "3", "--by", "ann")
    assert stock("list") == "    7 acetone  (ann took 3)\n"
    refused = subprocess.run(
        command("stock.py", *where, "take", "acetone", "8"), cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert refused.stderr == "stock: there are 7 of acetone, not 8\n"
    assert stock("log") == "took 3 of acetone, ann\n10 of acetone arrived\n"
    assert stock("undo") == "undone: took 3 of acetone\n"
    assert stock("list") == "   10 acetone\n"
    stock("undo")
    assert stock("list") == "    7 acetone  (ann took 3)\n"


def has_heard(log: Path, others: set[str], lines: int) -> bool:
    heard = log.read_text()
    return all(heard.count(f"  {other}: ") == lines for other in others)


@pytest.mark.parametrize("script", ["web.py", "hello.py", "chatter.py", "process_runs.py"])
def test_what_cannot_be_opened_is_told_in_a_line(tmp_path: Path, script: str) -> None:
    done = subprocess.run(command(script, "x://y"), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "x://y" in line


def test_three_chatters_hear_each_other(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "served.fs").url
    names = ("ann", "bob", "eve")
    logs = [tmp_path / f"{name}.log" for name in names]
    talk = [url, "--interval", "0.05", "--lines", "5"]
    with (
        started("chatter.py", *talk, "--name", "ann", output=logs[0]),
        started("chatter.py", *talk, "--name", "bob", output=logs[1]),
        started("chatter.py", *talk, "--name", "eve", output=logs[2]),
    ):
        for name, log in zip(names, logs, strict=True):
            wait_for(partial(has_heard, log, set(names) - {name}, 5), *logs)
    with zeo_client.open(url) as db, db.transaction() as conn:
        assert len(conn.root()["chat"]["lobby"]) == 15


def test_chatters_survive_a_restart_of_the_server(tmp_path: Path, start_zeod: StartZeod) -> None:
    socket = ["-f", "served.fs", "-a", "./chat.sock"]
    server = start_zeod(*socket)
    logs = [tmp_path / "ann.log", tmp_path / "bob.log"]
    with (
        started("chatter.py", server.url, "--name", "ann", "--interval", "0.1", output=logs[0]),
        started("chatter.py", server.url, "--name", "bob", output=logs[1]),
    ):
        wait_for(lambda: "ann: " in logs[1].read_text(), *logs)
        assert server.stop() == 0
        # bob only listens: what he shows is in his cache, and he need not notice
        wait_for(partial(says, logs[0], "* the server is away, waiting for it"), *logs)
        start_zeod(*socket)
        wait_for(partial(says, logs[0], "* the server is back"), *logs)
        heard = logs[1].read_text().count("ann: ")
        wait_for(lambda: logs[1].read_text().count("ann: ") > heard, *logs)


def says(log: Path, line: str) -> bool:
    return line in log.read_text().splitlines()


def test_a_chatter_leaves_after_its_seconds(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "served.fs").url
    output = run("chatter.py", url, "--name", "ann", "--seconds", "0.2", cwd=tmp_path)
    assert output.splitlines() == ["* ann is in session lobby", "* ann leaves"]


def test_sessions_are_apart(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "served.fs").url
    once = ["--seconds", "0.4", "--interval", "9"]
    run("chatter.py", url, "--name", "ann", "--session", "kitchen", *once, cwd=tmp_path)
    assert "ann" not in run("chatter.py", url, "--name", "bob", "--seconds", "0.2", cwd=tmp_path)
    assert "ann: " in run("chatter.py", url, "--session", "kitchen", "--seconds", "0.2", cwd=tmp_path)


def test_a_chatter_at_a_terminal(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "served.fs").url
    logs = [tmp_path / "ann.log", tmp_path / "bob.log"]
    terminal, slave = pty.openpty()
    with (
        started("chatter.py", url, "--name", "bob", output=logs[1]),
        started("chatter.py", url, "--name", "ann", output=logs[0], stdin=slave) as ann,
    ):
        os.write(terminal, b"is anybody here?\n")
        wait_for(lambda: "ann: is anybody here?" in logs[1].read_text(), *logs)
        os.write(terminal, b"\x04")  # Ctrl-D
        assert ann.wait(PATIENCE_S) == 0
    assert logs[0].read_text().endswith("* ann leaves\n")
    os.close(terminal)
    os.close(slave)


def test_process_runs_over_the_network(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "served.fs").url
    assert_runs(run("process_runs.py", url, "--runs", "600", "--lookups", "50", cwd=tmp_path))


def test_process_runs_on_a_file_are_added_to(tmp_path: Path) -> None:
    for _ in range(2):
        assert_runs(run("process_runs.py", "runs.fs", "--runs", "600", "--lookups", "50", cwd=tmp_path))
    sys.path.insert(0, str(EXAMPLES))  # the stored classes are process_runs.Run and so on
    try:
        with zeo_client.open(tmp_path / "runs.fs") as db, db.transaction() as conn:
            fab = conn.root()["fab"]
            assert len(fab.by_number) == 1200
            assert sum(len(numbers) for numbers in fab.numbers_by_owner.values()) == 1200
            assert {run.owner for run in fab.runs_of("ann")} == {"ann"}
            assert len(fab.run(7).operations) == 3
    finally:
        sys.path.remove(str(EXAMPLES))


def serving(log: Path) -> str:
    """Return the address that a web program has said."""
    wait_for(lambda: "serving " in log.read_text(), log)
    return log.read_text().split()[1]


def ask(url: str, method: str = "GET") -> str:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=PATIENCE_S) as answer:
        text: bytes = answer.read()
    return text.decode()


def test_two_web_programs_share_a_guest_book(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "served.fs").url
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with (
        started("web.py", url, "--port", "0", output=logs[0]) as one,
        started("web.py", url, "--port", "0", output=logs[1]),
    ):
        first, second = map(serving, logs)
        with urllib.request.urlopen(first + "news", timeout=PATIENCE_S) as news:
            assert "visit 1 of ann &amp; bob" in ask(second + "?ann+%26+bob", "POST")
            assert news.readline() == b"data: 1 visits\n"
            assert "1 guests" in ask(first)
            one.send_signal(signal.SIGINT)
            assert one.wait(PATIENCE_S) == 0
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(second + "elsewhere")
        with ThreadPoolExecutor(5) as threads:
            list(threads.map(lambda _: ask(second + "?cy", "POST"), range(10)))
        assert "<li>cy: 10</li>" in ask(second)
    assert "Traceback" not in logs[0].read_text() + logs[1].read_text()


def assert_runs(output: str) -> None:
    for told in ("add 600 runs", "find 50 runs by number", "read the operations of one run", "1. ", "3. "):
        assert told in output


def demo(tmp_path: Path) -> str:
    return run("demo.py", "--var", "var", "--interval", "0.05", cwd=tmp_path)


def pids(output: str) -> list[int]:
    return [int(pid) for group in re.findall(r"process(?:es)? ([0-9, ]+)", output) for pid in group.split(",")]


def test_the_demonstration_goes_on_in_a_second_run(tmp_path: Path) -> None:
    first, second = demo(tmp_path), demo(tmp_path)
    assert "all 12 messages are still there" in first
    assert "has 12 messages; it goes on" in second
    assert "all 24 messages are still there" in second
    assert len(set(pids(first))) == 5  # two servers, three chatters
    assert not [pid for pid in pids(first + second) if is_running(pid)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "demo.log"
    with started("demo.py", "--var", str(tmp_path / "var"), "--interval", "5", output=log) as process:
        wait_for(lambda: "talk:" in log.read_text(), log)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number
    assert len(pids(log.read_text())) == 4
    assert not [pid for pid in pids(log.read_text()) if is_running(pid)]


def test_a_failed_demonstration_says_why(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "Data.fs").write_bytes(b"no database")
    done = subprocess.run(command("demo.py"), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "Data.fs" in done.stderr
    assert "Traceback" not in done.stderr
