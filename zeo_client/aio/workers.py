"""The threads in which an asyncio program's object code runs, and what a task's cancellation means to them.

A thread cannot be stopped from outside. So a cancelled task waits until its function has ended, and only then lets the
CancelledError out: when it comes out, nothing of the task runs any more and its transaction has come to its end. What
has not begun by then never begins; what has begun is told, and can ask by `check_cancelled`.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

from zeo_core.errors import ConnectionStateError

__all__ = ["Job", "Workers", "check_cancelled"]

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")


class Job(Generic[_Result]):
    """A function's run in a worker thread, and what came of it."""

    def __init__(self, call: Callable[[], _Result]) -> None:
        self.begun = False
        self.cancelled = False
        """Whether the task that waits for it was cancelled."""
        self._call = call
        self._result: _Result | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Call the function; in the worker thread."""
        self.begun = True
        _job.set(self)  # in the context that was made for this call
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - it comes out where the result is asked for
            self._error = error

    def outcome(self) -> _Result:
        """Return what the function returned, or raise what it raised."""
        error, self._error = self._error, None  # it refers to this job by its traceback
        if error is None:
            return cast(_Result, self._result)
        try:
            raise error
        finally:
            del error


_job: ContextVar[Job[Any] | None] = ContextVar("zeo_client.aio job", default=None)


def check_cancelled() -> None:
    """Raise CancelledError if the task was cancelled that waits for the function that this thread runs.

    For functions that take long, between two of their steps; does nothing elsewhere.
    """
    job = _job.get()
    if job is not None and job.cancelled:
        raise asyncio.CancelledError("the task that waits for this function was cancelled")


class Workers:
    """Up to `number` threads. They are used from one event loop."""

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"workers must be at least 1, not {number}")
        self._threads = ThreadPoolExecutor(number, "zeo_client.aio")
        self._closed = False

    async def run(
        self, function: Callable[[*_Arguments], _Result], *args: *_Arguments, in_any_case: bool = False
    ) -> _Result:
        """Call `function` in a worker thread, with the task's context variables; return what it returns.

        If the task is cancelled, CancelledError comes out when the function has ended; what it raised meanwhile is the
        cause. Cancelled before a thread was free it is not called, unless `in_any_case`: for what tidies up.
        ConnectionStateError after `close`.
        """
        if iscoroutinefunction(function):
            raise TypeError(f"{function!r} is a coroutine function; what uses objects is a plain function")
        if self._closed:
            raise ConnectionStateError("the database is closed; make a new one, or close this one later")
        context = contextvars.copy_context()
        job = Job(lambda: function(*args))
        running = self._threads.submit(context.run, job.run)
        cancelled = await _ended(job, running, stoppable=not in_any_case)
        if cancelled is None:
            return job.outcome()
        try:
            job.outcome()
        except asyncio.CancelledError:
            pass  # it was told, and has obeyed
        except BaseException as error:
            raise cancelled from error
        raise cancelled

    def close(self, *, wait: bool = True) -> None:
        """Let the threads end when they have done what was given to them; with `wait`, block until then."""
        self._closed = True
        self._threads.shutdown(wait)


async def _ended(job: Job[Any], running: "Future[None]", *, stoppable: bool) -> asyncio.CancelledError | None:
    """Wait until a job has ended, whatever happens to this task; return its cancellation, if there was one."""
    cancelled = None
    waited_for = asyncio.wrap_future(running)
    while not waited_for.done():
        try:
            await asyncio.wait((waited_for,))
        except asyncio.CancelledError as error:
            cancelled = error
            job.cancelled = True
            if stoppable:
                running.cancel()  # does nothing once it runs
    return cancelled
