"""What the commands of `zeofs` have in common: showing how far they are, and reading oids and times."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TypeVar

import click

from zeo_core.ids import Oid, Tid, pack_id, tid_from_time, tid_to_time
from zeo_core.storage import Progress
from zeo_server.storages.blob_layout import find_beside

__all__ = [
    "DIRECTORY",
    "FILE",
    "blob_directory",
    "blob_options",
    "count_of",
    "human_size",
    "parse_oid",
    "parse_time",
    "time_text",
    "work",
]

_Result = TypeVar("_Result")

FILE = click.Path(dir_okay=False, path_type=str)
"""The type of an argument that names a database file."""

DIRECTORY = click.Path(exists=True, file_okay=False)
"""The type of an argument that names a directory."""

_SILENT_S = 2.0  # work that is done sooner needs no progress bar


def work(steps: Iterable[Progress | _Result], kind: type[_Result] | None = None) -> Iterator[_Result]:
    """Drive `steps`, show on a terminal how far they are, and pass on those results that are of `kind`."""
    started, bar, phase, phase_started = time.monotonic(), None, "", time.time()
    with ExitStack() as stack:
        for step in steps:
            if not isinstance(step, Progress):
                if kind is not None:
                    yield step
                continue
            if step.phase != phase:
                stack.close()  # the bar of the last phase
                bar, phase, phase_started = None, step.phase, time.time()
            if bar is not None:
                bar.update(step.done_bytes - bar.pos)
            elif sys.stderr.isatty() and time.monotonic() - started > _SILENT_S:
                bar = stack.enter_context(click.progressbar(length=step.total_bytes, label=phase, file=sys.stderr))
                bar.start = phase_started  # what the time left is reckoned from
                bar.update(step.done_bytes)


def blob_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --blob-dir and --no-blobs, as the arguments `blob_dir` and `blobs`; see `blob_directory`."""
    blob_dir = click.option(
        "--blob-dir", type=DIRECTORY, help="The directory of the blobs, if it is at no usual place."
    )
    return blob_dir(click.option("--blobs/--no-blobs", default=True, help="Leave blobs alone.")(command))


def blob_directory(file: str, blob_dir: str | None, *, blobs: bool) -> str | None:
    """Return the blob directory of `file` that a command is to use: the one named, or found beside; None for none."""
    return (blob_dir or find_beside(file)) if blobs else None


def count_of(number: int, noun: str) -> str:
    """Return "1 object", "2,000 objects"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def human_size(size: float) -> str:
    """Return a number of bytes for human eyes: "20.5 MB", of 1,000,000 bytes."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def time_text(tid: Tid) -> str:
    """Return the time of a tid in UTC, to the millisecond."""
    try:
        return datetime.fromtimestamp(tid_to_time(tid), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    except (ValueError, OverflowError):
        return "(no time)"


def parse_oid(text: str) -> Oid:
    """Return the oid that a word of the command line stands for: 0x2a or 42."""
    try:
        return pack_id(int(text, 0))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no oid; give it as 0x2a or 42") from None


def parse_time(text: str) -> Tid:
    """Return the tid of the moment that a word of the command line stands for: a date, a date with a time, a tid."""
    try:
        if text[:2].lower() == "0x":
            return pack_id(int(text, 16))
        moment = datetime.fromisoformat(text)
        return tid_from_time((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        hint = "give it as 2026-01-31, 2026-01-31T12:00:00 (UTC unless it names a zone) or as a tid, 0x..."
        raise click.BadParameter(f"{text!r} is no time; {hint}") from None
