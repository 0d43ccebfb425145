"""Running `zeofs` as its users do: in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def zeofs(directory: Path, *args: str, status: int = 0) -> str:
    """Run a command in `directory` and return what it prints; it must end with `status`."""
    done = run(directory, *args)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    assert done.stderr == "" or status == 2, done.stderr
    return done.stderr if status == 2 else done.stdout


def run(directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a command, however it ends."""
    command = [sys.executable, "-W", "error", "-m", "zeo_server.cli.zeofs.main", *args]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)


def json_lines(printed: str) -> list[dict[str, Any]]:
    """Return the objects that a command printed, one on a line."""
    return [json.loads(line) for line in printed.splitlines()]
