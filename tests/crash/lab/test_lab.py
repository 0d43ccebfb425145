"""The laboratory's experiments: power cuts at every moment, faults at every call; and faults of our own that it finds.

`make test-slow` goes on for an hour. ZEOD_LAB_MINUTES changes that, and ZEOD_LAB_SEED, which a failure names, repeats a
run.
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import pytest

from tests.crash.lab.laboratory import FAULTS, Experiment, Finding
from tests.crash.lab.workloads import WORKLOADS, Backups, Blobs, Commits
from zeo_server.storages import durable
from zeo_server.storages.file.blob_storage import BlobFileStorage
from zeo_server.storages.file.writer import Writer

SEED = int(os.environ.get("ZEOD_LAB_SEED", "0")) or random.randrange(1, 1 << 32)
_sync = Writer._sync

MINUTES = float(os.environ.get("ZEOD_LAB_MINUTES", "60"))

_QUICK_MOMENTS = {"commits": 50, "pack": 12, "blobs": 12, "backups": 20}


def assert_nothing(found: Iterable[Finding | None], least: int) -> None:
    """Assert that so many crashes at least were tried, and nothing was found wrong after any of them."""
    tried = 0
    for finding in found:
        tried += 1
        if finding is not None:
            raise AssertionError(f"seed {SEED}: {finding}") from finding.error
    assert tried >= least


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_the_power_is_cut(name: str, tmp_path: Path) -> None:
    experiment, chance = Experiment(WORKLOADS[name], tmp_path), random.Random(SEED)
    moments = chance.sample(experiment.moments(), min(_QUICK_MOMENTS[name], len(experiment.moments())))
    assert_nothing(
        (finding for moment in moments for finding in islice(experiment.try_moment(moment, chance, 1), 6)),
        len(moments),
    )


@pytest.mark.parametrize("name", ["backups", "blobs", "commits"])
def test_the_disk_fails(name: str, tmp_path: Path) -> None:
    experiment, chance = Experiment(WORKLOADS[name], tmp_path), random.Random(SEED)
    changes = range(len(experiment.recording.changes))
    found = (
        finding
        for change in chance.sample(changes, 8)
        for finding in islice(experiment.try_fault(change, chance.choice(FAULTS), chance, 1), 3)
    )
    assert_nothing(found, 8)


def test_the_power_is_cut_again_while_what_it_left_is_opened(tmp_path: Path) -> None:
    experiment, chance = Experiment(Commits, tmp_path), random.Random(SEED)
    moments = chance.sample(experiment.moments(), 5)
    assert_nothing((finding for moment in moments for finding in experiment.try_twice(moment, chance, 1)), 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_the_power_is_cut_at_every_moment(name: str, tmp_path: Path) -> None:
    """Each of the workloads has a quarter of the time; every moment and every fault comes at least once."""
    experiment, chance = Experiment(WORKLOADS[name], tmp_path), random.Random(SEED)
    until = time.monotonic() + MINUTES * 60 / len(WORKLOADS)
    moments = list(experiment.moments())
    while True:
        chance.shuffle(moments)
        for moment in moments:
            assert_nothing(experiment.try_moment(moment, chance, 3), 1)
            if moment < len(moments) - 1:
                assert_nothing(experiment.try_fault(moment, chance.choice(FAULTS), chance, 1), 1)
            if name == "commits":
                assert_nothing(experiment.try_twice(moment, chance, 1), 1)
        if time.monotonic() > until:
            return


# -- does it find anything? -------------------------------------------------------------------------------------------


def is_found(experiment: Experiment) -> bool:
    """Tell whether any power cut, at any moment, shows that something is wrong."""
    chance = random.Random(SEED)
    moments = chance.sample(experiment.moments(), len(experiment.moments()))
    return any(
        finding is not None for moment in moments for finding in islice(experiment.try_moment(moment, chance, 2), 12)
    )


def _nothing(*_: object) -> None:
    pass


def _sync_of_bytes_only(self: Writer, marks: Sequence[tuple[int, bytes]] = ()) -> None:
    """Mark transactions as finished, and never bring that to disk."""
    for position, status in marks:
        self._write_at(status, position)
    if not marks:
        _sync(self)


def _sync_of_marks_only(self: Writer, marks: Sequence[tuple[int, bytes]] = ()) -> None:
    """Bring bytes and mark to disk together, in whatever order."""
    if marks:
        _sync(self, marks)


@pytest.mark.parametrize(
    ("workload", "place", "name", "broken"),
    [
        pytest.param(Commits, durable, "sync_data", _nothing, id="no sync of transactions"),
        pytest.param(Commits, Writer, "_sync", _sync_of_marks_only, id="one sync for bytes and mark"),
        pytest.param(Commits, Writer, "_sync", _sync_of_bytes_only, id="no sync of the mark"),
        pytest.param(Blobs, durable, "sync_file", _nothing, id="no sync of blobs"),
        pytest.param(Blobs, durable, "sync_directory", _nothing, id="no sync of the names of blobs"),
        pytest.param(Blobs, BlobFileStorage, "_place_blobs", _nothing, id="blobs that stay where they were staged"),
        pytest.param(Backups, durable, "sync_file", _nothing, id="no sync of backups"),
        pytest.param(Backups, durable, "sync_directory", _nothing, id="no sync of the names of backups"),
    ],
)
def test_what_is_broken_is_found(
    workload: Callable[[], Commits | Blobs | Backups],
    place: object,
    name: str,
    broken: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as sabotage:
        sabotage.setattr(place, name, broken)
        experiment = Experiment(workload, tmp_path)
    assert is_found(experiment)
