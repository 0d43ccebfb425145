"""Fixtures: every kind of storage, one after the other."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.served import RELAYED, SERVED
from tests.contract.storages import KINDS, Kind
from zeo_core.zodb import ZODBStorage


def kinds(fit: Callable[[Kind], bool] = lambda _kind: True) -> list[Any]:
    """Return the kinds that fit, as parameters of a fixture."""
    return [pytest.param(kind, marks=[pytest.mark.slow] if kind.slow else []) for kind in KINDS if fit(kind)]


@pytest.fixture(scope="session", autouse=True)
def served() -> Iterator[None]:
    """Stop the server that the suite may have started."""
    yield
    RELAYED.stop()
    SERVED.stop()


@pytest.fixture(params=kinds(), ids=lambda kind: kind.name)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZODBStorage]:
    """An empty storage."""
    kind: Kind = request.param
    with kind.open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=kinds(lambda kind: kind.iterates), ids=lambda kind: kind.name)
def logged_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZODBStorage]:
    """An empty storage whose log can be walked."""
    kind: Kind = request.param
    with kind.open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=kinds(lambda kind: kind.groups), ids=lambda kind: kind.name)
def local_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZODBStorage]:
    """An empty storage in this process."""
    kind: Kind = request.param
    with kind.open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=kinds(lambda kind: kind.undoes and kind.groups), ids=lambda kind: kind.name)
def local_undoing_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZODBStorage]:
    """An empty storage in this process that can undo."""
    kind: Kind = request.param
    with kind.open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=kinds(lambda kind: kind.undoes), ids=lambda kind: kind.name)
def undoing_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZODBStorage]:
    """An empty storage that can undo."""
    kind: Kind = request.param
    with kind.open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=kinds(lambda kind: kind.undoes), ids=lambda kind: f"to {kind.name}")
def other_undoing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZODBStorage]:
    """An empty storage beside the other."""
    kind: Kind = request.param
    directory = tmp_path / "other"
    directory.mkdir()
    with kind.open(directory) as opened:
        yield opened


@pytest.fixture(params=kinds(lambda kind: kind.keeps), ids=lambda kind: kind.name)
def keeping_kind(request: pytest.FixtureRequest) -> Kind:
    """A kind of storage that outlives its process."""
    kind: Kind = request.param
    return kind
