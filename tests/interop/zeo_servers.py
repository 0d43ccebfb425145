"""zeod in the place of runzeo, for ZEO's own tests: what `ZEO._forker.runner` does in the process of a server.

ZEO's tests start a server by `start_zeo_server`, which has a new process call `runner`, and stop it by a message. Here
that process is one of zeod. It is forked from a process that has zeod imported and runs nothing else (multiprocessing's
"forkserver", for which ZEO has an environment variable), so that it is there in a tenth of the time. Where a test wants
its server in a thread, the thread has such a process beside.
"""

import contextlib
import glob
import multiprocessing
import multiprocessing.util
import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver
from typing import Any
from unittest.mock import patch

from ZEO import _forker

from tests.interop.delayed_storage import delayed
from zeo_server import daemon
from zeo_server.config import Configuration, load

__all__ = ["run_zeod", "zeod_for_runzeo"]

START_TIMEOUT_S = 33

CLASSES = ("ZODB.tests.ConflictResolution.*",)
"""Classes whose conflicts ZEO's tests want resolved on the server; runzeo resolves those of any class it can import."""


@contextlib.contextmanager
def zeod_for_runzeo() -> Iterator[None]:
    """Have ZEO's tests start zeod."""
    multiprocessing.util.get_temp_dir()  # chosen now, and not in the directory of a test
    forkserver.set_forkserver_preload([__name__])
    forkserver.ensure_running()
    with patch.object(_forker, "runner", run_zeod), patch.dict(os.environ, ZEO_PROCESS_TYPE="forkserver"):
        yield


def run_zeod(config: str, qin: Any, qout: Any, timeout: float | None = None, **options: Any) -> None:
    """Serve what the file `config` says, tell the address in `qout`, and end when there is something in `qin`."""
    if threading.current_thread() is not threading.main_thread():
        _run_beside(config, qin, qout, timeout, options)
        return
    is_delayed = _take_out_delays(config)
    configuration = load(config)
    if is_delayed:
        configuration = replace(configuration, storages=tuple(map(delayed, configuration.storages)))
    configuration = replace(
        configuration, conflict_resolution_classes=(*configuration.conflict_resolution_classes, *CLASSES)
    )
    os.remove(config)
    threading.Thread(target=_await_stop, args=(qin, timeout), daemon=True).start()
    daemon.run(configuration, lambda banner: qout.put(_address(configuration, banner)))
    if not options.get("keep"):
        _clean_up(configuration)
    qout.put(False)  # it did not have to be killed


def _run_beside(config: str, qin: Any, qout: Any, timeout: float | None, options: dict[str, Any]) -> None:
    """Have a process do what a thread was asked to do."""
    told, tells = _forker.ThreadlessQueue(), _forker.ThreadlessQueue()
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=run_zeod, args=(config, told, tells, timeout), kwargs=options, daemon=True)
    process.start()
    qout.put(tells.get(timeout=START_TIMEOUT_S))
    told.put(qin.get())
    qout.put(tells.get(timeout=START_TIMEOUT_S))
    process.join()


def _take_out_delays(config: str) -> bool:
    """Remove from the file what would have ZEO's own storage wrap ours; tell whether it was there."""
    with open(config, encoding="utf-8") as file:
        text = file.read()
    plain = re.sub(r"%import ZEO\.tests|</?loaddelayed_storage>", "", text)
    with open(config, "w", encoding="utf-8") as file:
        file.write(plain)
    return plain != text


def _await_stop(qin: Any, timeout: float | None) -> None:
    with contextlib.suppress(_forker.Empty, EOFError):
        qin.get(timeout)
    os.kill(os.getpid(), signal.SIGTERM)


def _address(configuration: Configuration, banner: str) -> object:
    """Return the address as ZEO's server tells it, with the port that it got."""
    if isinstance(configuration.address, str):
        return configuration.address
    port = re.search(r":(\d+); connect", banner)
    assert port
    return configuration.address[0], int(port.group(1))


def _clean_up(configuration: Configuration) -> None:
    for section in configuration.storages:
        for path in glob.glob(glob.escape(section.what) + "*"):
            if os.path.isfile(path):
                os.remove(path)
