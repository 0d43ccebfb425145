"""A chat over a database: every process that opens it talks in sessions, and sees what the others say.

    python examples/chatter.py --name ann                      type lines, read the others'; end with Ctrl-D
    python examples/chatter.py --name bob --session kitchen    another session
    python examples/chatter.py --name eve --interval 1 --seconds 10    say a line each second, for ten seconds

The database's root has one BTree of sessions under "chat", by name; a session is a BTree of messages by time (in
microseconds since 1970); a message is the pair (name, text).
"""

import argparse
import random
import select
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import transaction
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree

import zeo_client
from zeo_core.errors import ClientDisconnected, CommitInDoubtError, ZeodError

DEFAULT = "zeo://127.0.0.1:9672"
POLL_S = 0.05  # how often to ask for news; without news that costs no round trip
PATIENCE_S = 1.0  # when the server is away, say so after this long
RECENT_US = 60_000_000  # messages may come in up to a minute later than their time says
SHOWN_AT_START = 10
TRIES = 20  # a chat is one BTree that all write to, so conflicts are its normal life

SMALL_TALK = (
    "lot 17 is out of the furnace",
    "who has the recipe for the nitride?",
    "the stepper is free",
    "please keep the etch bench for me at two",
    "wafer 4 has a scratch, I took it out",
    "the resist is fresh today",
    "oxide is 41 nm, as it should be",
    "coffee?",
    "run 1204 is waiting for its metal",
    "the pump is loud again",
)


class Message(NamedTuple):
    """One line of a conversation."""

    at: int
    name: str
    text: str

    def __str__(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.at / 1e6))
        return f"{clock}  {self.name}: {self.text}"


class Session:
    """A chat session as seen through one connection to the database."""

    def __init__(self, db: Any, name: str) -> None:
        self._conn = db.open()
        self._name = name
        self._seen: set[int] = set()

    def say(self, name: str, text: str) -> None:
        """Add a message. Of two processes that add at once, one gets a ConflictError, and tries again."""
        for attempt in transaction.manager.attempts(TRIES):
            with attempt:
                messages = self._messages()
                at = time.time_ns() // 1000
                while at in messages:
                    at += 1
                messages[at] = (name, text)
        self._seen.add(at)

    def earlier(self, count: int) -> list[Message]:
        """Return the last `count` messages, and from now on only what comes after them."""
        self._conn.sync()
        every = list(self._read(0))
        self._seen.update(message.at for message in every)
        return every[-count:]

    def news(self) -> list[Message]:
        """Return what others said since the last call."""
        self._conn.sync()  # move on to the newest state of the database
        since = time.time_ns() // 1000 - RECENT_US
        fresh = [message for message in self._read(since) if message.at not in self._seen]
        self._seen.update(message.at for message in fresh)
        return fresh

    def close(self) -> None:
        """Give the connection back."""
        transaction.abort()
        self._conn.close()

    def _messages(self) -> Any:
        """Return the session's BTree; the first who writes makes it."""
        sessions = self._conn.root().get("chat")
        if sessions is None:
            sessions = self._conn.root()["chat"] = OOBTree()
        if self._name not in sessions:
            sessions[self._name] = LOBTree()
        return sessions[self._name]

    def _read(self, since: int) -> Iterator[Message]:
        messages = self._conn.root().get("chat", {}).get(self._name, {})
        if messages:
            yield from (Message(at, name, text) for at, (name, text) in messages.items(since))


class Chatter:
    """A person at a terminal, or a script that plays one."""

    def __init__(self, session: Session, name: str, interval_s: float | None, lines: int | None) -> None:
        self._session = session
        self._name = name
        self._interval_s = interval_s
        self._lines_left = lines if lines is not None else sys.maxsize
        self._waiting: list[str] = []  # said, but not yet stored: the server may be away
        self._next_line_s = time.monotonic()
        self._listens_to_stdin = interval_s is None and sys.stdin.isatty()
        self._away = False
        self.done = False

    def step(self) -> None:
        """Show what the others said, store what was said here, wait a moment."""
        try:
            for message in self._session.news():
                print(message, flush=True)
            while self._waiting:
                self._say(self._waiting[0])
                del self._waiting[0]
            self._tell_of_server(away=False)
        except ClientDisconnected:
            self._tell_of_server(away=True)
        self._listen()

    def _say(self, text: str) -> None:
        try:
            self._session.say(self._name, text)
        except CommitInDoubtError:
            # saying it again might say it twice, and whoever wants to can
            print(f"* the server went away while storing {text!r}; it may be there or not", flush=True)

    def _tell_of_server(self, away: bool) -> None:
        if away != self._away:
            self._away = away
            print("* the server is away, waiting for it" if away else "* the server is back", flush=True)

    def _listen(self) -> None:
        if not self._listens_to_stdin:
            self._play()
            time.sleep(POLL_S)
        elif select.select([sys.stdin], [], [], POLL_S)[0]:
            line = sys.stdin.readline()
            self.done = not line
            if line.strip():
                self._waiting.append(line.strip())

    def _play(self) -> None:
        if self._interval_s is None or not self._lines_left or time.monotonic() < self._next_line_s:
            return
        self._next_line_s += self._interval_s
        self._lines_left -= 1
        self._waiting.append(random.choice(SMALL_TALK))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", nargs="?", default=DEFAULT, help=f"an address, {DEFAULT} by default")
    parser.add_argument("--session", default="lobby", help="where to talk (lobby)")
    parser.add_argument("--name", default="someone", help="who talks")
    parser.add_argument("--seconds", type=float, help="leave after so many seconds")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="say a line of small talk this often")
    parser.add_argument("--lines", type=int, metavar="N", help="with --interval: after N lines, only listen")
    return parser.parse_args()


def main() -> None:
    """Talk until the time is over, the input ends, or Ctrl-C."""
    options = parse()
    if not options.database.startswith("zeo://"):
        sys.exit(f"chatter: {options.database} is no server's address, which begins with zeo://; a file has one user")
    with (
        zeo_client.open(options.database, reconnect_timeout=PATIENCE_S) as db,
        closing(Session(db, options.session)) as session,
    ):
        print(f"* {options.name} is in session {options.session}", flush=True)
        for message in session.earlier(SHOWN_AT_START):
            print(message, flush=True)
        chatter = Chatter(session, options.name, options.interval, options.lines)
        end_s = time.monotonic() + options.seconds if options.seconds is not None else float("inf")
        try:
            while time.monotonic() < end_s and not chatter.done:
                chatter.step()
        except KeyboardInterrupt:
            pass  # the way to leave
        print(f"* {options.name} leaves", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ZeodError as error:  # the server is not there, the file is in use, ...
        sys.exit(f"chatter: {error}")
