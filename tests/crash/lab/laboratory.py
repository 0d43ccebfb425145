"""Experiments: a workload is recorded once, and then the power is cut at every moment of it, in many ways.

Or each of its calls of the system fails, once or from then on, and after that the power is cut.
"""

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.crash.lab.recording import Failing, Recording
from tests.crash.lab.states import Crash, crashes, write_out
from tests.crash.lab.workloads import Workload

__all__ = ["FAULTS", "Experiment", "Fault", "Finding"]


class Fault(NamedTuple):
    """What a call of the system does instead: an error, or, without a number, writing but a part."""

    number: int | None
    for_ever: bool

    def __str__(self) -> str:
        what = "a short write" if self.number is None else errno.errorcode[self.number]
        return f"{what}{' for ever' if self.for_ever else ''}"

    def at(self, change: int) -> Failing:
        """Return what makes the call fail that would have been change number `change`, if it can fail so."""

        def failing(number: int, kind: str) -> OSError | int | None:
            if number < change or (number > change and not self.for_ever):
                return None
            if self.number is None:
                return 7 if kind == "write" else None
            if self.number == errno.ENOSPC and kind in {"remove", "rmdir"}:
                return None
            return OSError(self.number, os.strerror(self.number))

        return failing


FAULTS = [
    Fault(None, for_ever=False),
    *(Fault(number, for_ever) for number in (errno.EIO, errno.ENOSPC) for for_ever in (False, True)),
]


class Finding(NamedTuple):
    """A crash after which a promise was broken, or a failure that was not told as one."""

    crash: Crash | None
    fault: str
    error: Exception

    def __str__(self) -> str:
        crash = f"power cut after change {self.crash.moment}, with {self.crash.choice}: " if self.crash else ""
        return f"{self.fault}{crash}{type(self.error).__name__}: {self.error}"


class Experiment:
    """One recorded run of a workload, in a directory of its own."""

    def __init__(self, make: Callable[[], Workload], directory: Path) -> None:
        self._make = make
        self._workload = workload = make()
        self._directory = directory
        self._remains = directory / "remains"
        work = directory / "work"
        work.mkdir(parents=True)
        workload.prepare(work)
        with Recording(work) as recording:
            workload.work(work, recording.mark)
        self.recording = recording

    def moments(self) -> range:
        """Return all moments at which the power can be cut."""
        return range(len(self.recording.changes) + 1)

    def try_moment(self, moment: int, chance: random.Random, samples: int) -> Iterator[Finding | None]:
        """Cut the power after so many changes; give what was found wrong, or None, for each way the disk may look."""
        for crash in crashes(self.recording.before, self.recording.changes, moment, chance, samples):
            yield self._try(self._workload, crash)

    def try_twice(self, moment: int, chance: random.Random, samples: int) -> Iterator[Finding | None]:
        """Cut the power, open what it left, and cut the power again in the midst of that."""
        found = list(crashes(self.recording.before, self.recording.changes, moment, chance, samples))
        first = chance.choice(found)
        shutil.rmtree(self._remains, ignore_errors=True)
        write_out(first.files, self._remains)
        with Recording(self._remains) as again:
            self._workload.check(self._remains, first.marks)
        # Of what `check` commits itself nothing is known: only the opening, up to the first sync behind it, is cut.
        syncs = [number for number, change in enumerate(again.changes) if change.kind == "sync"]
        last = syncs[0] if syncs else 0
        for second in crashes(again.before, again.changes, chance.randint(0, last), chance, samples):
            yield self._try(
                self._workload, second._replace(marks=first.marks, choice=f"{first.choice}; then {second.choice}")
            )

    def try_fault(self, change: int, fault: Fault, chance: random.Random, samples: int) -> Iterator[Finding | None]:
        """Have the call fail that would make a change, then cut the power; give findings, or None, as `try_moment`."""
        work = self._directory / "faulty"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        workload = self._make()  # what it expects is another run's
        workload.prepare(work)
        said = f"{fault} at change {change}: "
        with Recording(work, fault.at(change)) as recording:
            try:
                workload.work(work, recording.mark)
            except workload.told_by:
                pass
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no way to tell
                yield Finding(None, said, error)
        for crash in crashes(recording.before, recording.changes, len(recording.changes), chance, samples):
            yield self._try(workload, crash, said)

    def _try(self, workload: Workload, crash: Crash, fault: str = "") -> Finding | None:
        shutil.rmtree(self._remains, ignore_errors=True)
        write_out(crash.files, self._remains)
        try:
            workload.check(self._remains, crash.marks)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the laboratory looks for
            return Finding(crash, fault, error)
        return None
