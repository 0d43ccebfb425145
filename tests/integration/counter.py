"""A program that increases a shared counter: `python -m tests.integration.counter zeo://host:port times`."""

import sys

import transaction
from BTrees.Length import Length

import zeo_client


def main() -> None:
    """Increase `conn.root()["counter"]` so many times, each in a transaction of its own, retried on conflicts."""
    url, times = sys.argv[1], int(sys.argv[2])
    with zeo_client.open(url) as db:
        connection = db.open()
        for attempt in transaction.manager.attempts(1000):
            with attempt:
                connection.root().setdefault("counter", Length(0))
        for _ in range(times):
            for attempt in transaction.manager.attempts(10_000):
                with attempt:
                    connection.root()["counter"].change(1)
        connection.close()


if __name__ == "__main__":
    main()
