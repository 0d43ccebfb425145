"""Client processes that get ready, work at the same time, and give back what they found."""

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Group", "group"]

_READY_S = 60.0

Work = Callable[..., Any]
"""Called in each process with its arguments, `ready` (to be called when it is) and `stop` (an event)."""


class Group:
    """Running processes, all of them ready."""

    def __init__(self, stop: Any, results: Any, count: int) -> None:
        self._stop = stop
        self._results = results
        self._count = count

    def results(self, *, stop: bool = True) -> list[Any]:
        """End the work, or wait for its end, and return what each process has found."""
        if stop:
            self._stop.set()
        return [self._results.get() for _ in range(self._count)]


@contextmanager
def group(work: Work, arguments: list[tuple[Any, ...]]) -> Iterator[Group]:
    """Run `work` in a process for each tuple of arguments."""
    context = multiprocessing.get_context("spawn")
    barrier, stop, results = context.Barrier(len(arguments) + 1), context.Event(), context.Queue()
    processes = [context.Process(target=_run, args=(work, each, barrier, stop, results)) for each in arguments]
    for process in processes:
        process.start()
    barrier.wait(_READY_S)
    yield Group(stop, results, len(arguments))
    for process in processes:
        process.join()


def _run(work: Work, arguments: tuple[Any, ...], barrier: Any, stop: Any, results: Any) -> None:
    logging.disable()  # ZEO's client has much to say when invalidations overtake each other
    results.put(work(*arguments, barrier.wait, stop))
