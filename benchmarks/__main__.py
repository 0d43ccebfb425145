"""Compare zeod with ZEO and ZODB: python -m benchmarks [--only TEXT]. Prints tables, and writes JSON and a plot."""

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from benchmarks import (
    blobs,
    bulk_write,
    cache,
    client_server,
    compression,
    idle,
    limits,
    objects,
    opening,
    pack,
    plots,
    report,
    walk,
)
from benchmarks.figures import Figure, table

Part = Callable[[int], Iterator[Figure]]

PARTS: dict[str, Part] = {
    "the machine": limits.figures,
    "clients and servers": client_server.figures,
    "many objects": walk.figures,
    "bulk write": bulk_write.figures,
    "caches": cache.figures,
    "slow links": compression.figures,
    "blobs": blobs.figures,
    "pack": lambda repeats: pack.figures(min(repeats, 3)),
    "opening": lambda repeats: opening.figures(min(repeats, 3)),
    "object layer": lambda repeats: objects.figures(repeats, 50_000, ("file", "client", "own file")),
    "idle clients": lambda _: idle.figures(),
}
"""By name, with what a run of all of them measures: some ten minutes with three repeats."""


def _chosen(only: str) -> dict[str, Part]:
    """Return the parts that have `only` in their names, or the tasks for a client and a server that have."""
    if any(only in name for name in PARTS):
        return {name: part for name, part in PARTS.items() if only in name}
    if any(only in name for name in client_server.TASKS):
        return {"clients and servers": lambda repeats: client_server.figures(repeats, only)}
    known = ", ".join([*PARTS, *client_server.TASKS])
    raise click.BadParameter(f"nothing has {only!r} in its name; there are: {known}", param_hint="--only")


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Turns of each contender in each task.")
@click.option("--only", default="", metavar="TEXT", help="Only the parts, or else the tasks, with this in their names.")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default="bench-results",
    show_default=True,
    help="Where the JSON and the plot go.",
)
def main(repeats: int, only: str, results: Path) -> None:
    """Time zeod and its peers side by side, over real processes and loopback, and what the machine can do."""
    parts = {"the machine": limits.figures} | _chosen(only)
    found: dict[str, list[Figure]] = {}
    for name, part in parts.items():
        click.echo(f"\n== {name}")
        found[name] = list(part(repeats))
        for line in table(found[name]):
            click.echo(line)
    results.mkdir(parents=True, exist_ok=True)
    report.save(results / "report.json", found)
    plots.draw_ratios(results / "ratios.svg", found)
    click.echo(f"\nwritten: {results / 'report.json'}, {results / 'ratios.svg'}")


if __name__ == "__main__":
    main()
