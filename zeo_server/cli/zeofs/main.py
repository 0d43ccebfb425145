"""The command `zeofs` itself: the group of its commands, and what they say when they fail."""

import sys
from typing import Any

import click

from zeo_core.errors import ZeodError
from zeo_server.cli.zeofs.backup import backup
from zeo_server.cli.zeofs.check import check
from zeo_server.cli.zeofs.convert import convert
from zeo_server.cli.zeofs.copy import copy
from zeo_server.cli.zeofs.dump import dump, tail
from zeo_server.cli.zeofs.index import index
from zeo_server.cli.zeofs.pack import pack
from zeo_server.cli.zeofs.recover import recover
from zeo_server.cli.zeofs.refs import refs
from zeo_server.cli.zeofs.restore import restore
from zeo_server.cli.zeofs.show import show
from zeo_server.cli.zeofs.stats import stats
from zeo_server.storages.file.memory import VARIABLE, bound_memory

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands end with one line and status 2 where an error keeps them from their work."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            bound_memory()
            return super().invoke(ctx)
        except (ZeodError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise  # whoever read the output has seen enough; click ends the command quietly
            click.echo(f"zeofs: {error}", err=True)
            sys.exit(2)
        except MemoryError:
            click.echo(f"zeofs: not enough memory; {VARIABLE} allows more than half of the machine's", err=True)
            sys.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zeod", message="zeofs %(version)s")
def main() -> None:
    """Look after database files (Data.fs), also while a server has them open.

    Exit status: 0 if all is well, 1 if the command found faults in the data, 2 if it could not do its work.
    """


for _command in (backup, check, convert, copy, dump, index, pack, recover, refs, restore, show, stats, tail):
    main.add_command(_command)


if __name__ == "__main__":
    main()
