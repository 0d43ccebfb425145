"""The demonstration behind `make run`: a server, three who talk through it, and a restart.

It starts zeod on var/Data.fs, lets three chatters talk, stops the server, starts it again, shows that the conversation
is still there, and stops everything. Run it again and the conversation goes on.
"""

import argparse
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Self

import chatter

import zeo_client

HERE = Path(__file__).parent
USUAL_PORT = 9672
NAMES = ("ann", "bob", "eve")
SESSION = "lobby"
LINES = 4  # of each
PATIENCE_S = 30.0  # for anything that should take a second
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """Something did not happen as it should; the text says what."""


class Processes:
    """The processes started here. However the `with` block is left, none of them stays behind."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._starting = False
        self._ended_by = 0

    def __enter__(self) -> Self:
        for number in ENDING:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # cleaning up is not to be interrupted, and it is short
        for process in reversed(self._running):
            self._end(process)

    def start(self, *command: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own, so that a Ctrl-C at the terminal comes to us alone."""
        self._starting = True  # a signal between the fork and the append would leave the process to itself
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0
        )
        self._running.append(process)
        self._starting = False
        if self._ended_by:
            raise SystemExit(128 + self._ended_by)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """End one process in the orderly way and return its exit status."""
        status = self._end(process)
        self._running.remove(process)
        return status

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        if process.poll() is None:
            process.terminate()
            try:
                return process.wait(PATIENCE_S / 3)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._ended_by = number
        if not self._starting:
            raise SystemExit(128 + number)


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; Failed if that takes too long."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise Failed(f"after {PATIENCE_S:.0f} s, {what} is still to come")
        time.sleep(0.02)


def choose_port() -> int:
    """Return the usual port, or any free one if somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_server(processes: Processes, port: int, var: Path) -> subprocess.Popen[bytes]:
    """Start zeod and wait until it can be talked to."""
    log = var / "zeod.log"
    zeod = str(Path(sys.executable).with_name("zeod"))
    with log.open("wb") as output:
        server = processes.start(zeod, "-a", f"127.0.0.1:{port}", "-f", str(var / "Data.fs"), output=output)

    def ready() -> bool:
        if server.poll() is not None:
            raise Failed(f"zeod ended with status {server.returncode}:\n{log.read_text()}")
        return answers(port)

    wait_for("the server's answer", ready)
    say(f"zeod (process {server.pid}) serves {var / 'Data.fs'} on 127.0.0.1:{port}; its log is {log}")
    return server


class Conversation:
    """Three processes that talk, and what there is to hear of it."""

    def __init__(self, processes: Processes, address: str, var: Path, interval_s: float) -> None:
        self._processes = processes
        self._address = address
        self._var = var
        self._interval_s = interval_s
        self._messages: list[chatter.Message] = []

    def hold(self) -> int:
        """Let them talk, listening in with a connection of our own; return how many messages there were."""
        with zeo_client.open(self._address) as db, closing(chatter.Session(db, SESSION)) as session:
            session.earlier(0)
            talking = [self._start(name) for name in NAMES]
            say(f"three chatters (processes {', '.join(str(process.pid) for process in talking)}) talk:\n")
            wait_for("the end of the conversation", partial(self._listen, session))
        say("")
        for name in NAMES:
            wait_for(f"what {name} hears of the others", partial(self._heard_all, name))
            others = sum(message.name != name for message in self._messages)
            say(f"{name} has heard all {others} messages of the others")
        for process in talking:
            self._processes.stop(process)
        return len(self._messages)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        who = [str(HERE / "chatter.py"), self._address, "--session", SESSION, "--name", name]
        script = ["--interval", str(self._interval_s), "--lines", str(LINES)]
        with self._log(name).open("wb") as output:
            return self._processes.start(sys.executable, *who, *script, output=output)

    def _listen(self, session: chatter.Session) -> bool:
        for message in session.news():
            self._messages.append(message)
            say(f"    {message}")
        return len(self._messages) >= LINES * len(NAMES)

    def _heard_all(self, name: str) -> bool:
        heard = self._log(name).read_text().splitlines()
        return all(str(message) in heard for message in self._messages if message.name != name)

    def _log(self, name: str) -> Path:
        return self._var / f"chatter-{name}.log"


def recall(address: str) -> list[chatter.Message]:
    """Return the whole conversation, as a newcomer reads it."""
    with zeo_client.open(address) as db, closing(chatter.Session(db, SESSION)) as session:
        return session.earlier(sys.maxsize)


def stop_server(processes: Processes, server: subprocess.Popen[bytes]) -> None:
    """Stop zeod as an administrator would."""
    status = processes.stop(server)
    if status:
        raise Failed(f"zeod ended with status {status}; its log has more")
    say(f"zeod (process {server.pid}) has stopped")


def run(var: Path, interval_s: float) -> None:
    """Show everything once."""
    var.mkdir(exist_ok=True)
    port = choose_port()
    address = f"zeo://127.0.0.1:{port}"
    if port != USUAL_PORT:
        say(f"port {USUAL_PORT} is taken, so this demonstration uses {port}")
    with Processes() as processes:
        server = start_server(processes, port, var)
        before = len(recall(address))
        if before:
            say(f"the conversation of earlier runs has {before} messages; it goes on")
        said = Conversation(processes, address, var, interval_s).hold()
        say("")
        stop_server(processes, server)
        server = start_server(processes, port, var)
        after = recall(address)
        if len(after) != before + said:
            raise Failed(f"{before + said} messages were stored, and {len(after)} are there")
        say(f"all {len(after)} messages are still there; the last ones:\n")
        for message in after[-3:]:
            say(f"    {message}")
        say("")
        stop_server(processes, server)


def main() -> None:
    """Run, and turn a failure into one line and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--var", type=Path, default=Path("var"), help="the directory for the data (./var)")
    parser.add_argument("--interval", type=float, default=0.7, help="seconds between two lines of a chatter (0.7)")
    options = parser.parse_args()
    try:
        run(options.var, options.interval)
    except Failed as failure:
        sys.exit(f"demo: {failure}")


if __name__ == "__main__":
    main()
