"""Builds the pages of docs/, and the README as their beginning, as a book in HTML: make docs."""

import os
import re
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

project = "zeod"
author = "the authors of zeod"
release = version_of("zeod")

extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"zeod {release}"
html_copy_source = False

_DOCS = Path(__file__).parent
_README = _DOCS.parent / "README.md"
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)(#[^)]*)?\)")


def _within_the_book(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the README in its place, and leave of links to files that the book does not have their text."""
    page = _README if name == "start" else Path(app.env.doc2path(name))
    text = _README.read_text("utf-8") if name == "start" else source[0]
    place = _DOCS / "start.md" if name == "start" else page

    def kept(match: re.Match[str]) -> str:
        target = (page.parent / match[2]).resolve()
        if target == _README:
            target = _DOCS / "start.md"
        if not target.is_relative_to(_DOCS):
            return match[1]
        return f"[{match[1]}]({os.path.relpath(target, place.parent)}{match[3] or ''})"

    source[0] = _LINK.sub(kept, text)


def setup(app: Sphinx) -> None:
    """Have every page gone over."""
    app.connect("source-read", _within_the_book)
