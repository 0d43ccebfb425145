"""The bound to memory: a hungry record is an error like any other, and the bound can be set."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.cli.zeofs.run import zeofs
from tests.server.storages.file.build import File
from tests.server.storages.file.hostile import HUNGRY
from tests.server.storages.file.test_graph import record
from zeo_core.errors import ConfigurationError, RecordFormatError
from zeo_core.ids import ROOT_OID, pack_id
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.memory import VARIABLE, bound_memory

A = pack_id(0x1234)

_PROGRAM = """
import resource
from zeo_server.storages.file.memory import bound_memory
bound_memory(int({processes}))
try:
    bytes({size})
except MemoryError:
    print("refused")
else:
    print("given")
"""


def asked(size: int, *, processes: int = 1) -> str:
    program = _PROGRAM.format(size=size, processes=processes)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_more_than_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "200")
    assert asked(100_000_000) == "given"
    assert asked(250_000_000) == "refused"
    monkeypatch.setenv(VARIABLE, "0")
    assert asked(250_000_000) == "given"


def test_without_the_variable_it_is_half_of_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    all_there_is = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert asked(100_000_000, processes=2) == "given"
    assert asked(all_there_is * 6 // 10) == "refused"
    assert asked(all_there_is * 3 // 10, processes=2) == "refused"


def test_what_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.setenv(VARIABLE, "much")
    with pytest.raises(ConfigurationError, match=f"{VARIABLE}: 'much' is no number of megabytes"):
        bound_memory()
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_check_names_the_hungry_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "500")
    (tmp_path / "Data.fs").write_bytes(File().add((ROOT_OID, record(A)), (A, HUNGRY)).content)
    printed = zeofs(tmp_path, "check", "Data.fs", status=1)
    assert "the record of oid 0x1234 cannot be read: no pickled object record: MemoryError" in printed
    assert "Data.fs: 1 fault" in printed
    monkeypatch.setenv(VARIABLE, "x")
    assert zeofs(tmp_path, "check", "Data.fs", status=2) == f"zeofs: {VARIABLE}: 'x' is no number of megabytes\n"


def test_a_pack_names_the_hungry_record_and_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "500")
    content = File().add((ROOT_OID, record(A)), (A, HUNGRY)).content
    (tmp_path / "Data.fs").write_bytes(content)
    storage = FileStorage(tmp_path / "Data.fs")
    with pytest.raises(RecordFormatError, match=r"0x1234 cannot be read.*MemoryError"):
        list(storage.pack_steps(2**31))
    storage.close()
    assert (tmp_path / "Data.fs").read_bytes() == content
