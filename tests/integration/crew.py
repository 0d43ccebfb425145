"""Programs that work side by side until the test has seen enough of each, and that tell how far they are.

    crew = Crew(tmp_path, "tests.integration.bank")
    crew.start(server.url, "move")                 # python -m tests.integration.bank SHIFT server.url move
    crew.until(lambda: crew.total("moved") > 100)
    crew.close()                                   # the shift ends, and everybody with it

A test that gives its programs a fixed time asks for a fast machine: here the work ends on what was done. A program says
so after each thing it does, with a line that has all its figures, so that what a killed one had done is known as well.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.client.peer import until

__all__ = ["LIMIT_S", "Crew", "Shift", "Worker"]

LIMIT_S = 240.0
"""How long work may take before the test fails instead of going on for ever: many times what a slow machine needs."""

_ROOT = Path(__file__).parents[2]


class Shift:
    """The working hours as a program sees them: they end when a file is there."""

    def __init__(self, end: str) -> None:
        self._end = end

    def __bool__(self) -> bool:
        """Tell whether to go on."""
        return not os.path.exists(self._end)

    def tell(self, worker: int, tally: Any) -> None:
        """Say how far this thread is; `tally` is a dataclass. One write, so that no kill leaves half a line unseen."""
        os.write(1, json.dumps({"worker": worker, **asdict(tally)}).encode() + b"\n")


class Worker:
    """One running program and what it says."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.process = process
        self._output = output
        self._read_bytes = 0
        self._last: dict[int, dict[str, Any]] = {}

    def tallies(self) -> list[dict[str, Any]]:
        """The last whole line of each of its threads."""
        with self._output.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in map(json.loads, whole.splitlines()):
            self._last[line["worker"]] = line
        return list(self._last.values())

    def total(self, figure: str) -> int:
        return sum(tally[figure] for tally in self.tallies())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Crew:
    """All programs of a test, the killed ones too."""

    def __init__(self, directory: Path, module: str) -> None:
        self.workers: list[Worker] = []
        self._directory = directory
        self._end = directory / "end-of-shift"
        self._module = module

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.kill()

    def start(self, *arguments: str) -> Worker:
        output = self._directory / f"worker-{len(self.workers)}.txt"
        command = [sys.executable, "-m", self._module, str(self._end), *arguments]
        with output.open("wb") as file:
            self.workers.append(Worker(subprocess.Popen(command, cwd=_ROOT, stdout=file), output))
        return self.workers[-1]

    def tallies(self) -> list[dict[str, Any]]:
        return [tally for worker in self.workers for tally in worker.tallies()]

    def total(self, figure: str) -> int:
        return sum(worker.total(figure) for worker in self.workers)

    def until(self, enough: Callable[[], bool]) -> None:
        """Wait until there is enough, with everybody at work: a program that ends before fails the test."""

        def seen() -> bool:
            ended = [worker.process.args for worker in self.workers if worker.process.poll() not in (None, -9)]
            assert ended == []
            return enough()

        until(seen, LIMIT_S, pause_s=0.02)

    def close(self) -> None:
        """End the shift, and wait until everybody who was not killed is gone in order."""
        self._end.touch()
        for worker in self.workers:
            assert worker.process.wait(LIMIT_S) in (0, -9)
