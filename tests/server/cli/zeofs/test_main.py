"""The group of commands: help, version, errors."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.server.cli.zeofs.run import zeofs
from zeo_server.cli.zeofs.main import main


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    printed = CliRunner().invoke(main, [name, "--help"]).output
    assert re.search(rf"^ +zeofs {name} \S", printed, re.MULTILINE), "no example on a line of its own"
    assert "\\b" not in printed
    assert "Exit status" in printed


def test_help_version_and_unknown_commands(tmp_path: Path) -> None:
    assert "Commands:" in zeofs(tmp_path, "--help")
    assert zeofs(tmp_path, "--version").startswith("zeofs 0.")
    assert "No such command 'nonsense'" in zeofs(tmp_path, "nonsense", status=2)
