"""`zeo ping`: how long a server takes to answer."""

import json
import statistics
import time

import click

from zeo_client.cli.place import Place, connect, with_server

__all__ = ["ping"]


@click.command
@with_server
@click.option("-c", "--count", type=click.IntRange(1), default=5, show_default=True, help="How many calls.")
@click.option("-i", "--interval", default=0.2, show_default=True, metavar="SECONDS", help="Wait between the calls.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for a connection.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def ping(where: Place, count: int, interval: float, timeout: float, as_json: bool) -> None:
    """Call the server at WHERE and print how long each answer takes: the time of one load that finds its object.

    \b
    Example:
        zeo ping -c 10 127.0.0.1:9672
    """
    storage = connect(where, timeout, read_only=True)
    times_ms: list[float] = []
    try:
        for number in range(count):
            if number:
                time.sleep(interval)
            start = time.perf_counter()
            storage.ping()
            times_ms.append((time.perf_counter() - start) * 1000)
            if not as_json:
                click.echo(f"{where.address}: answer {number + 1} after {times_ms[-1]:.3f} ms")
    finally:
        storage.close()
    found = {"fastest": min(times_ms), "median": statistics.median(times_ms), "slowest": max(times_ms)}
    if as_json:
        click.echo(json.dumps({"address": str(where.address), "answers_ms": times_ms, **found}))
    else:
        click.echo(", ".join(f"{name} {time_ms:.3f}" for name, time_ms in found.items()) + " ms")
