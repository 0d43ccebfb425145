"""A guest book in a browser: an asyncio program whose data are in an object database.

    python examples/web.py                          a zeod on this machine, at its usual port
    python examples/web.py Data.fs --port 8080      a file, without any server

It is made of asyncio alone, to show where the database comes in; with a web framework the four functions on top are
the same. `GET /` shows the book, `POST /?NAME` signs it, `GET /news` sends a line whenever somebody signed, from
whatever process: run several, on different ports.
"""

import argparse
import asyncio
import contextlib
import html
import sys
import urllib.parse
from collections.abc import Callable, Coroutine
from typing import Any

from BTrees.OOBTree import OOBTree

import zeo_client.aio
from zeo_core.errors import ZeodError

DEFAULT = "zeo://127.0.0.1:9672"
NAME_MAX = 100
SHOWN = 20
ATTEMPTS = 20  # everybody writes into one tree

Connection = zeo_client.Connection


# -- what uses objects: plain functions, in worker threads -----------------------------------------------------------


def prepare(conn: Connection) -> None:
    """Make the book if there is none."""
    if "guests" not in conn.root():
        conn.root()["guests"] = OOBTree()


def sign(conn: Connection, name: str) -> int:
    """Count a visit of `name`, and return how many there were."""
    guests = conn.root()["guests"]
    guests[name] = guests.get(name, 0) + 1
    return int(guests[name])


def page(conn: Connection) -> str:
    """Return the book as HTML."""
    guests = conn.root()["guests"]
    rows = [f"<li>{html.escape(name)}: {visits}</li>" for name, visits in guests.items()[:SHOWN]]
    return f"<h1>{len(guests)} guests</h1><ul>{''.join(rows)}</ul>"


def total(conn: Connection) -> int:
    """Return how many visits there were."""
    return sum(conn.root()["guests"].values())


# -- what uses the network: the event loop ---------------------------------------------------------------------------


class Site:
    """Answers requests."""

    def __init__(self, db: zeo_client.aio.DB) -> None:
        self._db = db

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # somebody who left, or never meant a request
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, *_ = [*head.partition("\r\n")[0].split(), "", ""]
        path, _, query = target.partition("?")
        if (method, path) == ("GET", "/news"):
            await self._news(writer)
        else:
            status, text = await self._reply(method, path, urllib.parse.unquote_plus(query))
            writer.write(f"HTTP/1.0 {status}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{text}\n".encode())
            await writer.drain()

    async def _reply(self, method: str, path: str, name: str) -> tuple[str, str]:
        try:
            if (method, path) == ("GET", "/"):
                return "200 OK", await self._db.run(page)
            if (method, path) == ("POST", "/") and 0 < len(name) <= NAME_MAX:
                visits = await self._db.run(sign, name, attempts=ATTEMPTS, note="signed", user=name)
                return "200 OK", f"visit {visits} of {html.escape(name)}"
        except ZeodError as error:  # no server, too many conflicts, ...
            return "503 Service Unavailable", html.escape(str(error))
        return "404 Not Found", "GET / or POST /?NAME"

    async def _news(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        changes = self._db.changes()
        try:
            await writer.drain()
            async for _change in changes:
                writer.write(f"data: {await self._db.run(total)} visits\n\n".encode())
                await writer.drain()
        finally:
            changes.close()


async def serve(database: str, port: int, told: Callable[[str], Any] = print) -> None:
    """Serve until cancelled."""
    async with zeo_client.aio.open(database) as db:
        await db.run(prepare, attempts=ATTEMPTS)
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answering: Coroutine[Any, Any, None] = Site(db).answer(reader, writer)
            task = asyncio.create_task(answering)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
            host, port = server.sockets[0].getsockname()[:2]
            told(f"serving http://{host}:{port}/")
            try:
                await server.serve_forever()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Read the options, and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", nargs="?", default=DEFAULT, help=f"an address or a file, {DEFAULT} by default")
    parser.add_argument("--port", type=int, default=8000, help="8000 by default; 0 for a free one")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.database, options.port))


if __name__ == "__main__":
    try:
        main()
    except ZeodError as error:  # the server is not there, the file is in use, ...
        sys.exit(f"web: {error}")
