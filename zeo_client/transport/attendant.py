"""Who reads from a process's connections while no thread waits for a reply: one background thread for all of them.

A commit is told to every client at once, so in a process with many storages many sockets become readable within a
moment. One thread takes them in one after the other; a thread for each would spend more on waking up and on waiting for
the interpreter's lock than on what has come.

A thread that waits for its reply reads by itself (`transport.channel`). The attendant must not be woken by what that
one waits for: the two would compete for the socket and for the interpreter. So a socket is watched only while nobody
reads from it: who comes to read ends the watch, and whoever leaves the reader's place without a successor has it begin
again. For a call now and then those are two short system calls. Where calls follow each other closely they are saved,
too: the socket stays unwatched, and the attendant looks every TICK_S whether there are still calls, which take in what
has come together with their replies.
"""

import logging
import os
import select
import threading
from time import monotonic
from typing import Final, Protocol

__all__ = ["BUSY_S", "TICK_S", "Attendant", "Attended", "Post", "let_go", "look_after"]

logger = logging.getLogger(__name__)

BUSY_S: Final = 0.002
"""A reader that leaves so soon after the watch began is one of many: the watch does not begin anew for each of them."""

TICK_S: Final = 0.004
"""Twice this is the longest that an invalidation can lie in the socket after the last of many calls."""


class Attended(Protocol):
    """A connection."""

    calls: int
    """Changes with every call."""

    def fileno(self) -> int:
        """Return its socket's descriptor."""

    def attend_once(self) -> bool:
        """Take in what has arrived, without waiting; False if another thread reads, or nobody will any more."""

    def fail(self, reason: str) -> None:
        """End the connection."""


class Post:
    """One connection, as the attendant sees it. Readers call `taken` and `left`.

    An attendant that is woken and finds the reader's place taken ends the watch, and then looks at the place once more.
    Either it is free by then, or its holder will find, when it leaves, that nobody tends to the socket.
    """

    __slots__ = ("_ended", "_lock", "_seen", "_watched_s", "attendant", "connection", "fd", "tended", "watched")

    def __init__(self, connection: Attended, attendant: "Attendant") -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.watched = False
        """Whether the attendant is woken by what arrives."""
        self.tended = False
        """Whether it is, or comes to look at the next tick."""
        self._watched_s = 0.0
        self._seen = 0
        self._ended = False
        self.attendant = attendant
        self._lock = threading.Lock()  # over all of it, and what the kernel knows

    def taken(self) -> None:
        """End the watch: somebody reads."""
        with self._lock:
            if self.watched:
                self.watched = self.tended = False
                # A hang-up is told in any case; thus only once.
                self.attendant.epoll.modify(self.fd, select.EPOLLONESHOT)

    def left(self) -> None:
        """See to it that what arrives is taken in: nobody reads any more."""
        with self._lock:
            if self.tended:
                return
            now_s = monotonic()
            if now_s - self._watched_s < BUSY_S:
                self._seen = self.connection.calls
                self.tended = True
                self.attendant.begin_ticks(self)
            else:
                self._watched_s = now_s
                self._watch()

    def look(self) -> None:
        """Watch again if there have been no calls since the last look."""
        with self._lock:
            calls = self.connection.calls
            if self._seen != calls:
                self._seen = calls
            elif not self._ended:
                self.attendant.end_ticks(self)
                self._watch()

    def end(self) -> None:
        """Tend to it no more."""
        with self._lock:
            self._ended, self.watched, self.tended = True, False, True
            self.attendant.end_ticks(self)
            self.attendant.epoll.unregister(self.fd)

    def _watch(self) -> None:
        self.watched = self.tended = True
        self.attendant.epoll.modify(self.fd, select.EPOLLIN)


class Attendant:
    """The thread, and the posts it looks after."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self._posts: dict[int, Post] = {}  # by the descriptors of their sockets
        self._ticking: dict[Post, None] = {}  # the posts that are looked at
        self._ticks = False  # the thread comes to look at them soon
        self._tick_s = 0.0  # when, of monotonic
        self._ended = False
        self._ending = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.epoll.register(self._wake, select.EPOLLIN)
        threading.Thread(target=self._run, name="zeod attendant", daemon=True).start()

    def add(self, connection: Attended) -> Post:
        """Look after a connection."""
        post = self._posts[connection.fileno()] = Post(connection, self)
        self.epoll.register(post.fd, select.EPOLLONESHOT)
        post.left()
        return post

    def remove(self, post: Post) -> bool:
        """Look after a connection no more; tell whether it was the last one."""
        post.end()
        del self._posts[post.fd]
        return not self._posts

    def begin_ticks(self, post: Post) -> None:
        """Look at a post every TICK_S."""
        self._ticking[post] = None
        if not self._ticks:
            os.eventfd_write(self._wake, 1)

    def end_ticks(self, post: Post) -> None:
        """Look at a post no more; harmless when repeated."""
        self._ticking.pop(post, None)

    def end(self) -> None:
        """End the thread, when there are no more posts."""
        with self._ending:
            self._ended = True
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            while not self._ended:
                self._wait()
        finally:
            with self._ending:
                self.epoll.close()
                os.close(self._wake)

    def _wait(self) -> None:
        ticks = self._must_tick()
        for fd, _ in self.epoll.poll(max(0.0, self._tick_s - monotonic()) if ticks else None):
            post = self._posts.get(fd)
            if post is not None:
                _attend(post)
            elif fd == self._wake:
                os.eventfd_read(fd)
        if ticks and monotonic() >= self._tick_s:
            self._tick_s = 0.0
            for post in list(self._ticking):
                post.look()

    def _must_tick(self) -> bool:
        # Denied before it is looked at: a post that comes too late to be seen finds that it has to wake the thread.
        self._ticks = False
        self._ticks = bool(self._ticking)
        if self._ticks and not self._tick_s:
            self._tick_s = monotonic() + TICK_S
        return self._ticks


def _attend(post: Post) -> None:
    connection = post.connection
    try:
        if not connection.attend_once():
            post.taken()
            connection.attend_once()  # whoever had the reader's place may have left it before it could see this
    except Exception:  # not foreseen; the others must be looked after all the same
        logger.exception("cannot attend to a connection")
        connection.fail("cannot attend to the connection")


_guard = threading.Lock()  # over who is the attendant
_attendant: Attendant | None = None


def look_after(connection: Attended) -> Post:
    """Have what arrives on a connection taken in from now on."""
    global _attendant
    with _guard:
        if _attendant is None:
            _attendant = Attendant()
        return _attendant.add(connection)


def let_go(post: Post) -> None:
    """Look after a connection no more, before its socket is closed."""
    global _attendant
    with _guard:
        if post.attendant.remove(post):
            post.attendant.end()
            if post.attendant is _attendant:
                _attendant = None


def _forget() -> None:
    """In the child of a fork: threads stay behind, and so do the connections."""
    global _attendant, _guard
    _attendant, _guard = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
