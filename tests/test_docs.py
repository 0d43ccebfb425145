"""Runs the Python blocks of README.md and docs/, as real programs, against a zeod where they name one."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fixtures_zeod import StartZeod
from tests.generated_docs import PARTS, part_of, with_part
from tests.layout_rules import PACKAGES

ROOT = Path(__file__).parent.parent
ADDRESS = "127.0.0.1:9672"  # what the documents say; the tests put a free port in its place
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CITED = re.compile(r"\blessons?((?:,? (?:and )?B\d+)+)")
SCHEMA = re.compile(r"^```proto\n// (\w+\.proto)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    """A program in a document. Its first line names its file, by which the blocks below it can import it."""

    name: str
    text: str


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)]


def blocks(text: str) -> list[Block]:
    found = []
    for number, match in enumerate(BLOCK.finditer(text), 1):
        first_line = re.match(r"# (\w+\.py)\n", match[1])
        found.append(Block(first_line[1] if first_line else f"block_{number}.py", match[1]))
    return found


def compile_schemas(text: str, directory: Path) -> None:
    """Do what a document tells the reader to do with its .proto files: have protoc make a module of each."""
    for name, schema in SCHEMA.findall(text):
        (directory / name).write_text(schema, "utf-8")
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", name], cwd=directory, check=True
        )


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


WITH_PROGRAMS = [document for document in documents() if blocks(document.read_text("utf-8"))]


@pytest.mark.parametrize("document", WITH_PROGRAMS, ids=name_of)
def test_the_programs_of_a_document_run(document: Path, tmp_path: Path, start_zeod: StartZeod) -> None:
    text = document.read_text("utf-8")
    if ADDRESS in text:
        url = start_zeod("-f", "served.fs").url
        text = text.replace(ADDRESS, url.removeprefix("zeo://"))
    compile_schemas(text, tmp_path)
    for block in blocks(text):
        path = tmp_path / block.name
        path.write_text(block.text, "utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", block.name],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{name_of(document)}, {block.name}:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    broken = [link for link in LINK.findall(document.read_text("utf-8")) if not (document.parent / link).exists()]
    assert not broken, f"{name_of(document)} links to {', '.join(broken)}"


def test_the_book_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    start = (tmp_path / "start.html").read_text("utf-8")
    assert 'href="topics/transactions.html"' in start  # of the README, which stands outside docs/


def test_every_lesson_that_the_code_cites_is_told() -> None:
    told = set(re.findall(r"^- \*\*(B\d+)\*\* ", (ROOT / "docs/topics/lessons.md").read_text("utf-8"), re.MULTILINE))
    cited = {
        (number, path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for group in CITED.findall(path.read_text("utf-8"))
        for number in re.findall(r"B\d+", group)
    }
    assert cited
    missing = sorted(f"{path}: {number}" for number, path in cited if number not in told)
    assert not missing, f"not in docs/topics/lessons.md: {', '.join(missing)}"


def test_every_page_that_the_code_names_exists() -> None:
    named = {
        (page, path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for page in re.findall(r"\bdocs/[\w/.-]+\.md\b", path.read_text("utf-8"))
    }
    missing = sorted(f"{path}: {page}" for page, path in named if not (ROOT / page).is_file())
    assert not missing, f"no such page: {', '.join(missing)}"


@pytest.mark.parametrize(("page", "name"), PARTS, ids=str)
def test_what_is_made_from_the_code_is_up_to_date(page: str, name: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert part_of(text, name) == PARTS[page, name](), f"{page}: run `python -m tests.generated_docs`"


def test_a_part_of_a_page_is_replaced() -> None:
    page = "a\n<!-- made from the code: x -->\n\nold\n\n<!-- end -->\nb\n"
    assert part_of(page, "x") == "old\n"
    assert part_of(with_part(page, "x", "new\n"), "x") == "new\n"
    with pytest.raises(ValueError, match="no marks of the part y"):
        part_of(page, "y")


def test_blocks_are_found_with_their_names() -> None:
    text = "a\n```python\n# one.py\nx = 1\n```\nb\n```\nnot python\n```\n```python\ny = 2\n```\n"
    assert blocks(text) == [Block("one.py", "# one.py\nx = 1\n"), Block("block_2.py", "y = 2\n")]
