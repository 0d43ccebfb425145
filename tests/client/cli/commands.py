"""Running `zeo` as a user does: in a process of its own."""

import subprocess
import sys

__all__ = ["zeo"]


def zeo(*args: object) -> tuple[int, str, str]:
    """Run a command; return its exit status, what it prints and what it says on standard error."""
    command = [sys.executable, "-m", "zeo_client.cli.main", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr
