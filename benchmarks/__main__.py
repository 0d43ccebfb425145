"""Compare zeod with ZEO: python -m benchmarks [--rounds N]. Prints a table of medians with ratios and spreads."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import counter, fanout, latency, limits, work
from benchmarks.servers import KINDS, serve

Task = Callable[[str, int, int], float]

TASKS: dict[str, tuple[Task, int]] = {
    "one load, client cache empty": (work.cold_load_us, 2000),
    "warm load (client cache)": (work.warm_load_us, 20000),
    "small commits, 1 client": (work.small_commit_us, 300),
    "small commits, 8 clients": (work.parallel_commit_us, 100),
    "hot counter, resolved, 8 clients": (counter.resolved_counter_us, 100),
    "hot counter, 8 clients": (counter.plain_counter_us, 30),
    "commit until 50 clients know it": (fanout.fanout_us, 60),
    "p99 of loads, idle": (latency.load_p99_idle_us, 1500),
    "p99 of loads beside commits": (latency.load_p99_beside_commits_us, 1500),
}


def _measure(ports: dict[str, int], repeats: int, only: str) -> dict[str, dict[str, list[float]]]:
    """Time every task `repeats` times, alternating between the servers."""
    tasks = {name: task for name, task in TASKS.items() if only in name}
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in tasks}
    for name, (task, rounds) in tasks.items():
        for _ in range(repeats):
            for kind in KINDS:
                times[name][kind].append(task(kind, ports[kind], rounds))
    return times


def _print_table(times: dict[str, dict[str, list[float]]]) -> None:
    click.echo(f"\n{'':32}{'ZEO 6.2':>12}{'zeod':>12}{'ratio':>8}   spread of the ratio")
    for name, by_kind in times.items():
        zeo, zeod = (statistics.median(by_kind[kind]) for kind in KINDS)
        ratios = [a / b for a, b in zip(by_kind["zeo"], by_kind["zeod"], strict=True)]
        click.echo(f"{name:32}{zeo:>9.1f} us{zeod:>9.1f} us{zeo / zeod:>8.2f}   {min(ratios):.2f} .. {max(ratios):.2f}")


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Runs of each task on each server, alternating.")
@click.option("--only", default="", metavar="TEXT", help="Only the tasks with this in their names.")
def main(repeats: int, only: str) -> None:
    """Time zeod and ZEO side by side, over real processes and loopback, with the machine's limits in the same run."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        paths = {kind: Path(directory, f"{kind}.fs") for kind in KINDS}
        for path in paths.values():
            work.make_database(path)
        click.echo(f"echo to another process: {limits.echo_us(3000):.1f} us")
        click.echo(f"append and fsync:        {limits.append_fsync_us(500):.1f} us")
        with serve("zeo", paths["zeo"]) as zeo, serve("zeod", paths["zeod"]) as zeod:
            _print_table(_measure({"zeo": zeo.port, "zeod": zeod.port}, repeats, only))


if __name__ == "__main__":
    main()
