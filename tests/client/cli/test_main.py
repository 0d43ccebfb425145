import re

import pytest
from click.testing import CliRunner

from zeo_client.cli.main import main


def test_it_lists_its_commands() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in main.commands:
        assert name in result.output


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_an_example(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"^ +zeo {name} \S", result.output, re.MULTILINE), "no example on a line of its own"
    assert "\\b" not in result.output
