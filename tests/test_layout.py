"""Holds the project to the rules of tests/layout_rules.py, and holds those rules to catching what they are for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import layout_rules as rules

ROOT = Path(__file__).parent.parent

Rule = Callable[[Path], list[str]]


def check(rule: Rule) -> None:
    faults = rule(ROOT)
    assert not faults, "\n" + "\n".join(faults)


def test_client_and_server_meet_only_in_core() -> None:
    check(rules.import_arrows)


def test_peers_are_not_imported_at_run_time() -> None:
    check(rules.no_peers)


def test_core_does_no_io_and_reads_no_clock() -> None:
    check(rules.core_admission)


def test_files_are_short() -> None:
    check(rules.file_sizes)


def test_functions_are_short() -> None:
    check(rules.function_sizes)


def test_every_source_file_has_its_test_file() -> None:
    check(rules.mirrored_tests)


def test_all_lists_the_public_names() -> None:
    check(rules.all_is_true)


def test_one_file_syncs() -> None:
    check(rules.fsync_in_one_file)


def test_every_module_has_a_docstring() -> None:
    check(rules.docstrings)


LONG_FUNCTION = "def f(x):\n" + "    x += 1\n" * 51

BAD_TREES: list[tuple[Rule, str, str, str]] = [
    (rules.import_arrows, "zeo_client/db.py", "import zeo_server.daemon", "zeo_server.daemon"),
    (rules.import_arrows, "zeo_client/db.py", "def f():\n    from zeo_server import daemon", "db.py:2:"),
    (rules.import_arrows, "zeo_client/db.py", "import importlib\nimportlib.import_module('zeo_server.x')", "db.py:2:"),
    (rules.import_arrows, "zeo_client/a/b.py", "from ...zeo_server import daemon", "zeo_server.daemon"),
    (rules.import_arrows, "zeo_server/x.py", "from zeo_client import DB", "zeo_client.DB"),
    (rules.import_arrows, "zeo_core/x.py", "from zeo_client import DB", "zeo_core imports"),
    (rules.no_peers, "zeo_client/x.py", "def f():\n    import ZODB.POSException", "ZODB.POSException"),
    (rules.no_peers, "zeo_server/x.py", "from ZEO import server", "ZEO.server"),
    (rules.core_admission, "zeo_core/x.py", "import asyncio", "imports asyncio"),
    (rules.core_admission, "zeo_core/x.py", "from concurrent.futures import Future", "concurrent.futures.Future"),
    (rules.core_admission, "zeo_core/x.py", "from os import open", "os.open"),
    (rules.core_admission, "zeo_core/x.py", "import click", "imports click"),
    (rules.core_admission, "zeo_core/x.py", "def f(p):\n    return open(p)", "x.py:2: open"),
    (rules.core_admission, "zeo_core/x.py", "import io\nio.open('p')", "x.py:2: io.open"),
    (rules.core_admission, "zeo_core/x.py", "import time\nT = time.monotonic()", "time.monotonic"),
    (rules.core_admission, "zeo_core/x.py", "import time as t\nclock = t.time", "time.time"),
    (rules.core_admission, "zeo_core/x.py", "from time import sleep as nap\nnap(1)", "time.sleep"),
    (rules.core_admission, "zeo_core/x.py", "import time\nT = time.gmtime()", "time.gmtime"),
    (rules.core_admission, "zeo_core/x.py", "from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
    (rules.file_sizes, "zeo_core/x.py", "pass\n" * 501, "501 lines"),
    (rules.file_sizes, "tests/test_x.py", "pass\n" * 501, "501 lines"),
    (rules.function_sizes, "zeo_core/x.py", LONG_FUNCTION, "f has 51 lines"),
    (rules.function_sizes, "zeo_core/x.py", "class C:\n    async " + LONG_FUNCTION.replace("\n", "\n    "), "f has 51"),
    (rules.mirrored_tests, "zeo_core/wire/x.py", "def f():\n    return 1", "tests/core/wire/test_x.py"),
    (rules.mirrored_tests, "zeo_client/x.py", "TABLE = {1: 2}", "tests/client/test_x.py"),
    (rules.all_is_true, "zeo_core/x.py", "def f(): pass", "no __all__"),
    (rules.all_is_true, "zeo_core/x.py", "__all__ = ['g', 'f']\ndef f(): pass\ndef g(): pass", "not sorted"),
    (rules.all_is_true, "zeo_core/x.py", "__all__ = ['f', 'f']\ndef f(): pass", "twice"),
    (rules.all_is_true, "zeo_core/x.py", "__all__ = ['f']\ndef f(): pass\nX = 1", "lacks X"),
    (rules.all_is_true, "zeo_core/x.py", "__all__ = ['f']\nif 1:\n    class C: pass\ndef f(): pass", "lacks C"),
    (rules.all_is_true, "zeo_core/x.py", "__all__ = ['f']", "not defined here"),
    (rules.all_is_true, "zeo_core/x.py", "from os import path\n__all__ = ['path']", "not defined here"),
    (rules.fsync_in_one_file, "zeo_server/storages/x.py", "import os\nos.fsync(1)", "os.fsync"),
    (rules.fsync_in_one_file, "zeo_client/x.py", "from os import fdatasync as sync\nsync(1)", "os.fdatasync"),
    (rules.docstrings, "zeo_core/x.py", "x = 1", "no docstring"),
]


@pytest.mark.parametrize(("rule", "path", "text", "told"), BAD_TREES)
def test_a_rule_catches_its_violation(tmp_path: Path, rule: Rule, path: str, text: str, told: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    faults = rule(tmp_path)
    assert len(faults) == 1
    assert faults[0].startswith(path)
    assert told in faults[0]


GOOD_TREES: list[tuple[Rule, str, str]] = [
    (rules.import_arrows, "zeo_client/x.py", "from zeo_core import ids\nfrom .y import z"),
    (rules.no_peers, "zeo_client/x.py", "NAME = 'ZODB.POSException.ConflictError'"),
    (rules.core_admission, "zeo_core/x.py", "import time, io, struct, msgpack\ntime.gmtime(0)\nio.BytesIO()"),
    (rules.core_admission, "zeo_core/x.py", "class C:\n    def open(self): pass\nC().open()"),
    (rules.function_sizes, "zeo_core/x.py", "def f(x):\n    '''" + "\n    text" * 60 + "'''\n    return x"),
    (rules.mirrored_tests, "zeo_core/__init__.py", "def f():\n    return 1"),
    (rules.mirrored_tests, "zeo_core/x.py", "class P:\n    def f(self):\n        '''Do.'''\nAlias = list[int]"),
    (rules.all_is_true, "zeo_core/x.py", "import os\n_private = 1\ndef _f(): pass"),
    (
        rules.all_is_true,
        "zeo_core/x.py",
        "__all__ = ['MAX', 'C', 'f2', 'f10']\nMAX = 1\nclass C: pass\nf2 = f10 = 1",
    ),
    (rules.all_is_true, "zeo_core/x.py", "import logging\nlogger = logging.getLogger('x')\nT = TypeVar('T')"),
    (rules.all_is_true, "zeo_core/__init__.py", "from zeo_core.x import f\n__all__ = ['f']"),
    (rules.fsync_in_one_file, "zeo_server/storages/durable.py", "import os\nos.fsync(1)"),
]


@pytest.mark.parametrize(("rule", "path", "text"), GOOD_TREES)
def test_a_rule_lets_pass_what_is_right(tmp_path: Path, rule: Rule, path: str, text: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert rule(tmp_path) == []


def test_a_mirrored_test_file_is_found(tmp_path: Path) -> None:
    for path in ("zeo_server/storages/file/x.py", "tests/server/storages/file/test_x.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("def f():\n    return 1\n")
    assert rules.mirrored_tests(tmp_path) == []
