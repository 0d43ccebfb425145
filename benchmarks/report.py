"""A run of the benchmarks as JSON: its figures, and the machine and versions that they belong to."""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import Figure

__all__ = ["load", "machine", "save"]

_PACKAGES = ("zeod", "ZEO", "ZODB", "BTrees", "persistent", "transaction", "msgpack", "uvloop")

_FORMAT = 1


def machine() -> dict[str, object]:
    """Return what figures depend on."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
    }


def save(path: Path, parts: dict[str, list[Figure]]) -> None:
    """Write the figures of a run, by the parts it has."""
    report = {
        "format": _FORMAT,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "parts": {part: list(map(_plain, figures)) for part, figures in parts.items()},
    }
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def load(path: Path) -> dict[str, list[Figure]]:
    """Return the figures of a saved run; ValueError if the file is none."""
    report = json.loads(path.read_text("utf-8"))
    if not isinstance(report, dict) or report.get("format") != _FORMAT:
        raise ValueError(f"{path} is no report of the benchmarks")
    return {
        part: [Figure(each["name"], each["unit"], each["samples"], each["more_is_better"]) for each in figures]
        for part, figures in report["parts"].items()
    }


def _plain(figure: Figure) -> dict[str, object]:
    plain: dict[str, object] = {
        "name": figure.name,
        "unit": figure.unit,
        "more_is_better": figure.more_is_better,
        "medians": {contender: figure.median(contender) for contender in figure.samples},
        "samples": figure.samples,
    }
    return plain | ({"ratios": figure.ratios()} if figure.ratios() else {})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
