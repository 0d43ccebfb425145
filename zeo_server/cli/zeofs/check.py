"""`zeofs check`: whether a file is what it has to be."""

import json
import sys
from collections import deque

import click

from zeo_core.ids import unpack_id
from zeo_server.cli.zeofs.present import FILE, blob_directory, blob_options, count_of, human_size, time_text, work
from zeo_server.storages.file.check import Check

__all__ = ["check"]


@click.command
@click.argument("file", type=FILE)
@click.option(
    "--references/--no-references",
    default=True,
    show_default=True,
    help="Read every current record too, and look for what it refers to; without, a check is as fast as reading.",
)
@blob_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(file: str, references: bool, blob_dir: str | None, blobs: bool, as_json: bool) -> None:
    """Check every invariant of FILE's format, its index, the references between its objects, and its blobs.

    Blobs are looked for in the directory that --blob-dir names, or else beside FILE: in FILE.blobs, blobs, blobstorage
    or ../blobstorage, if it has the marker .layout.

    Works while a server has FILE open, and does not change it. A commit that is in progress, or was cut short by a
    crash, is told and is no fault.

    Exit status: 0 without faults, 1 with faults, 2 if FILE cannot be read.

    \b
    Example:
        zeofs check Data.fs
    """
    done = Check(file, read_records=references, blob_dir=blob_directory(file, blob_dir, blobs=blobs))
    deque(work(done.steps()), maxlen=0)
    if as_json:
        click.echo(json.dumps(_report(done)))
    else:
        _print(done, references)
    sys.exit(1 if done.fault_count else 0)


def _report(done: Check) -> dict[str, object]:
    return {
        "file": done.path,
        "bytes": done.size,
        "transactions": done.transactions,
        "records": done.records,
        "objects": done.objects,
        "last_tid": f"0x{unpack_id(done.last_tid):016x}",
        "index": done.index,
        "blobs": done.blobs
        and {
            "directory": done.blobs.path,
            "layout": done.blobs.layout,
            "records": done.blobs.blobs,
            "files": done.blobs.files,
            "unfinished": done.blobs.unfinished,
        },
        "unfinished": done.tail or None,
        "fault_count": done.fault_count,
        "faults": [{"file": path, "position": position, "reason": reason} for path, position, reason in done.faults],
    }


def _print(done: Check, references: bool) -> None:
    for fault in done.faults:
        click.echo(str(fault))
    if done.fault_count > len(done.faults):
        click.echo(f"... and {count_of(done.fault_count - len(done.faults), 'more fault')}")
    if done.tail:
        click.echo(f"{done.path}: at its end, a commit in progress or cut short: {done.tail}")
    blobs = done.blobs
    if blobs is not None:
        held = f"{count_of(blobs.blobs, 'record')} of blobs, {count_of(blobs.files, 'file')}, {blobs.layout}"
        later = f", {blobs.unfinished:,} of them later than the check" if blobs.unfinished else ""
        click.echo(f"{blobs.path}: {held}{later}")
    what = [count_of(done.transactions, "transaction"), count_of(done.records, "record")]
    what += [count_of(done.objects, "object"), human_size(done.size), f"index: {done.index}"]
    if done.transactions:
        what.append(f"last commit {time_text(done.last_tid)}")
    click.echo(f"{done.path}: {', '.join(what)}")
    verdict = count_of(done.fault_count, "fault") if done.fault_count else "no faults"
    click.echo(f"{done.path}: {verdict}" + ("" if references else "; references were not looked at"))
