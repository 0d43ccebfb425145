import json

import pytest

from zeo_client.cli.log_lines import print_lines
from zeo_core.ids import tid_from_time
from zeo_core.transaction import TransactionMetadata, UndoEntry

TID = tid_from_time(1e9)
LINE = UndoEntry(TID, TransactionMetadata(b"ada", "änder\n\x1b[31mit".encode()), 2048)


def test_a_line_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines([LINE], as_json=False)
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["tid", "when", "size", "who", "what"]
    assert row.split()[0] == TID.hex()
    assert row.rstrip().endswith(" 2.0 KB ada änder ?[31mit")


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines([LINE], as_json=True)
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["tid"], told["user"], told["size"]) == (TID.hex(), "ada", 2048)
    assert told["time"] == pytest.approx(1e9)
