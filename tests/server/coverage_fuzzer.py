"""A coverage-guided fuzzer of a connection: `python -m tests.server.coverage_fuzzer MESSAGES [libFuzzer's options]`.

Atheris watches which branches of the wire, the session, the handlers and the commit an input takes, and changes those
inputs further that took new ones. The connection is a real session of a real server; only its transport is one in
memory. An input is a byte that says whether the client registers, and then messages, each behind two bytes of length.
What is found is an input that makes the server log an error or a traceback, or that leaves something behind.
"""

import asyncio
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["zeo_core", "zeo_server"]):
    from zeo_server.commit.coordinator import Coordinator
    from zeo_server.service import Service
    from zeo_server.session import ServerSession
    from zeo_server.status import StorageStatus
    from zeo_server.storages.file.blob_storage import BlobFileStorage

from tests.server.hostile import GREETING, REGISTER, pack, recorded
from zeo_core.wire.frames import encode_frame

__all__ = ["Bench", "frames", "main"]

SEEDS = 300
_RENEWED_EVERY = 20_000  # inputs: the storage grows by what is committed
_SPINS = 20_000  # of the loop until everything must be over


class MemoryTransport(asyncio.Transport):
    """Takes everything at once and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: Any) -> None:
        """Forget it."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have none."""

    def pause_reading(self) -> None:
        """Go on: all that there is has been given."""

    def resume_reading(self) -> None:
        """Go on."""

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


class _Alarm(logging.Handler):
    """Keeps what must not be logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.records.append(record)


class Bench:
    """A server without a port."""

    def __init__(self) -> None:
        self.messages = 0
        self._loop = asyncio.new_event_loop()
        self._alarm = _Alarm()
        logging.getLogger().handlers[:] = [self._alarm]
        logging.getLogger().setLevel(logging.INFO)
        self.inputs = 0
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._renew()

    def close(self) -> None:
        if self._directory is not None:
            self._run(self._service.stop(0))
            self._storage.close()
            self._directory.cleanup()

    def _renew(self) -> None:
        self.close()
        self._directory = tempfile.TemporaryDirectory()
        path = Path(self._directory.name)
        self._storage = BlobFileStorage(path / "Data.fs", blob_dir=path / "blobs")
        self._coordinator = Coordinator(self._storage, self._loop)
        self._service = self._run(_service(self._coordinator))

    def _run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def try_input(self, data: bytes) -> None:
        """Connect, send, disconnect; RuntimeError if that was too much for the server."""
        self.inputs += 1
        if self.inputs % _RENEWED_EVERY == 0:
            self._renew()
        sent = list(frames(data[1:]))
        self.messages += len(sent)
        self._run(self._talk(GREETING + (REGISTER if data[:1] > b"\x40" else b"") + b"".join(sent)))
        if self._alarm.records:
            raise RuntimeError("\n".join(map(logging.Formatter().format, self._alarm.records)))

    async def _talk(self, stream: bytes) -> None:
        session = ServerSession(self._service, self._loop)
        session.connection_made(MemoryTransport())
        session.data_received(stream)
        await asyncio.sleep(0)
        session.connection_lost(None)
        for _ in range(_SPINS):
            status = StorageStatus.of(self._coordinator)
            if not (status.connections or status.waiting or status.counters["active_txns"]):
                return
            await asyncio.sleep(0)
        raise RuntimeError(f"something stays: {status}")


async def _service(coordinator: Coordinator) -> Service:
    return Service({"1": coordinator})


def frames(data: bytes) -> Iterator[bytes]:
    """Cut an input into messages."""
    while len(data) > 2:
        size = int.from_bytes(data[:2], "big") % 4096
        yield encode_frame(data[2 : 2 + size])
        data = data[2 + size :]


def _write_seeds(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for seed in range(SEEDS):
        payloads = [pack(call)[4:] for call in recorded(random.Random(seed))]
        body = b"".join(len(payload).to_bytes(2, "big") + payload for payload in payloads)
        (directory / f"recorded-{seed}").write_bytes((b"\x80" if seed % 5 else b"\x00") + body)


def main() -> None:
    """Fuzz until so many messages were sent, and say so; or end with what was found."""
    limit = int(sys.argv[1])
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    _write_seeds(corpus)
    bench = Bench()

    def try_input(data: bytes) -> None:
        bench.try_input(data)
        if bench.messages >= limit:
            print(json.dumps({"messages": bench.messages, "inputs": bench.inputs}), flush=True)
            bench.close()
            shutil.rmtree(corpus)
            os._exit(0)  # libFuzzer has no other way to be told that it is enough

    atheris.Setup([sys.argv[0], str(corpus), "-max_len=4096", "-timeout=60", *sys.argv[2:]], try_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
