"""The bookkeeping of the benchmarks: ratios, tables, reports, exponents, pictures; not the measuring."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.figures import Figure, compare, table
from benchmarks.growth import Growth
from benchmarks.plots import draw_growth, draw_ratios
from benchmarks.report import load, save
from benchmarks.scaling import table as growth_table

SOONER = Figure("a load", "us", {"zeo": [300.0, 400.0, 200.0], "zeod": [100.0, 100.0, 100.0]})
MORE = Figure("a walk", "/s", {"zeo": [1000.0], "zeod": [500.0]}, more_is_better=True)
FACT = Figure("an echo", "us", {"machine": [20.0]})


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def measure(kind: str) -> float:
        turns.append(kind)
        return float(len(turns))

    figure = compare("x", "us", ["zeo", "zeod"], 2, measure)
    assert turns == ["zeo", "zeod"] * 2
    assert figure.samples == {"zeo": [1, 3], "zeod": [2, 4]}


def test_a_ratio_says_how_many_times_better_zeod_is() -> None:
    assert SOONER.ratios() == [3, 4, 2]
    assert MORE.ratios() == [0.5]
    assert FACT.ratios() == []


def test_a_table_has_a_head_for_each_set_of_contenders() -> None:
    lines = list(table([FACT, SOONER, MORE]))
    heads = [line.split() for line in lines if "us" not in line and "/s" not in line and line]
    assert heads == [["machine"], ["zeo", "zeod", "ratio", "of", "single", "turns"]]
    [load_line] = [line for line in lines if line.startswith("a load")]
    assert load_line.split() == ["a", "load", "300", "us", "100", "us", "3.00", "2.00", "..", "4.00"]


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    parts = {"one": [FACT, SOONER], "two": [MORE]}
    save(tmp_path / "report.json", parts)
    assert load(tmp_path / "report.json") == parts
    assert json.loads((tmp_path / "report.json").read_text())["machine"]["processors"] > 0


def test_what_is_no_report_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match=r"other\.json is no report"):
        load(tmp_path / "other.json")


def test_an_exponent_is_found_again() -> None:
    growth = Growth("x", "us")
    for size in (10, 100, 1000):
        growth.add("zeod", size, 3 * size**1.5)
        growth.add("zeo", size, 7.0)
    assert growth.exponent("zeod") == pytest.approx(1.5)
    assert growth.exponent("zeo") == pytest.approx(0)
    growth.add("alone", 10, 1.0)
    assert math.isnan(growth.exponent("alone"))
    assert any("n^1.50" in line for line in growth_table([growth]))


def test_pictures_are_drawn(tmp_path: Path) -> None:
    draw_ratios(tmp_path / "ratios.svg", {"one": [FACT, SOONER, MORE]})
    growth = Growth("x", "us")
    for size in (10, 100):
        growth.add("zeod", size, float(size))
    draw_growth(tmp_path / "growth.svg", [growth], "objects")
    assert (tmp_path / "ratios.svg").stat().st_size > 1000
    assert (tmp_path / "growth.svg").stat().st_size > 1000


def test_a_run_without_peers_draws_no_ratios(tmp_path: Path) -> None:
    draw_ratios(tmp_path / "ratios.svg", {"one": [FACT]})
    assert not (tmp_path / "ratios.svg").exists()


def test_a_part_that_is_not_there_is_refused_with_those_that_are() -> None:
    result = CliRunner().invoke(main, ["--only", "nonsense"])
    assert result.exit_code == 2
    assert "small commits" in result.output
