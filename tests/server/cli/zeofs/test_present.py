"""Words of the command line, and the progress bar."""

from collections.abc import Iterator

import click
import pytest

from zeo_core.ids import pack_id, tid_from_time
from zeo_core.storage import Progress
from zeo_server.cli.zeofs import present


def test_oids() -> None:
    assert present.parse_oid("0x2a") == present.parse_oid("42") == pack_id(42)
    for wrong in ("x", "-1", "0x1ffffffffffffffff", ""):
        with pytest.raises(click.BadParameter, match="is no oid"):
            present.parse_oid(wrong)


def test_times() -> None:
    noon = tid_from_time(1_769_860_800)
    assert present.parse_time("2026-01-31T12:00:00") == present.parse_time("2026-01-31T13:00:00+01:00") == noon
    assert present.parse_time("2026-01-31") < noon
    assert present.parse_time("0x" + noon.hex()) == noon
    for wrong in ("yesterday", "0xhello", "1066-10-14", ""):
        with pytest.raises(click.BadParameter, match="is no time"):
            present.parse_time(wrong)
    assert present.time_text(noon) == "2026-01-31T12:00:00.000Z"


def test_numbers_for_human_eyes() -> None:
    assert [present.human_size(size) for size in (7, 20_500, 3.2e6, 1e10, 2e13)] == [
        "7 B",
        "20.5 kB",
        "3.2 MB",
        "10.0 GB",
        "20.0 TB",
    ]
    assert present.count_of(1, "object") == "1 object"
    assert present.count_of(2000, "object") == "2,000 objects"


def steps() -> Iterator[Progress | str]:
    yield Progress("walking", 1, 4)
    yield "found"
    yield Progress("walking", 2, 4)
    yield Progress("walking", 4, 4)


def test_results_pass_and_a_bar_shows_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(present.work(steps(), str)) == ["found"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(present, "_SILENT_S", -1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(present.work(steps(), str)) == ["found"]
    printed = capsys.readouterr().err
    assert "walking" in printed
    assert "100%" in printed
