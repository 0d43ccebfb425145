"""Store a list and a dictionary, and read them back in a second process.

python examples/hello.py                       a zeod on this machine, at its usual port
python examples/hello.py zeo://otherhost:9672  a zeod elsewhere
python examples/hello.py Data.fs               a file, without any server

A plain list or dictionary is part of the object that holds it, here the root: to change one, store it anew.
"""

import argparse
import subprocess
import sys

import zeo_client
from zeo_core.errors import ZeodError

DEFAULT = "zeo://127.0.0.1:9672"


def store(database: str) -> None:
    """Put a list and a dictionary into the root object; leaving the block commits."""
    with zeo_client.open(database) as db, db.transaction() as conn:
        root = conn.root()
        root["steps"] = ["clean", "oxidize", "expose", "etch"]
        root["oven"] = {"gas": "O2", "minutes": 30, "celsius": 1050}
    print("stored  steps and oven")


def show(database: str) -> None:
    """Print what the root object holds."""
    with zeo_client.open(database) as db, db.transaction() as conn:
        root = conn.root()
        print("found  ", root["steps"])
        print("found  ", root["oven"])


def main() -> None:
    """Store in this process, then start another one that reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", nargs="?", default=DEFAULT, help=f"an address or a file, {DEFAULT} by default")
    parser.add_argument("--read", action="store_true", help="only read; the second process is started with this")
    options = parser.parse_args()
    if options.read:
        show(options.database)
        return
    store(options.database)
    subprocess.run([sys.executable, __file__, "--read", options.database], check=True)


if __name__ == "__main__":
    try:
        main()
    except ZeodError as error:  # the server is not there, the file is in use, ...
        sys.exit(f"hello: {error}")
