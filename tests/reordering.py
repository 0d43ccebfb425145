"""Threads that are interrupted where nobody expects it: `with reordered(seed): ...` for the threads begun inside.

Whoever runs a line of the modules named here may have to wait there for a moment, so that others overtake. A race that
needs one thread to stop between two certain lines happens within seconds then, and not once a year.
"""

import contextlib
import random
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["reordered"]

FILES = (
    "channel.py",
    "attendant.py",
    "feed.py",
    "storage.py",
    "memory.py",
    "layered.py",
    "snapshot.py",
    "read_ahead.py",
)

ONE_LINE_IN = 300
LONGEST_S = 0.002


@contextlib.contextmanager
def reordered(seed: int) -> Iterator[None]:
    """Have threads wait at random lines of the client's, and take turns more often than usual."""
    choice = random.Random(seed)

    def at_line(_frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line" and choice.random() * ONE_LINE_IN < 1.0:
            time.sleep(choice.random() * LONGEST_S)
        return at_line

    def at_call(frame: FrameType, _event: str, _arg: Any) -> Any:
        path = frame.f_code.co_filename
        return at_line if "zeo_client" in path and path.endswith(FILES) else None

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    threading.settrace(at_call)
    try:
        yield
    finally:
        threading.settrace(None)  # which ends it
        sys.setswitchinterval(interval)
