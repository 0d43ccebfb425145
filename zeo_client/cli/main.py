"""The command `zeo` itself: the group of its commands, and what they say when they fail."""

import sys
from typing import Any

import click

from zeo_client.cli.clients import clients
from zeo_client.cli.history import history
from zeo_client.cli.nagios import nagios
from zeo_client.cli.pack import pack
from zeo_client.cli.ping import ping
from zeo_client.cli.status import status
from zeo_client.cli.top import top
from zeo_client.cli.undo import undo
from zeo_client.cli.undolog import undolog
from zeo_core.errors import ZeodError

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands end with one line and status 2 where an error keeps them from their work."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ZeodError as error:
            click.echo(f"zeo: {error}", err=True)
            sys.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zeod", message="zeo %(version)s")
def main() -> None:
    """Ask and tell a running server, zeod or ZEO's.

    WHERE is HOST:PORT, PORT, the path of a Unix socket, or a URL zeo://HOST:PORT/STORAGE.

    Exit status: 0 if all is well, 2 if the server cannot be reached or refuses; `zeo nagios` has its plug-ins' own.
    """


for _command in (clients, history, nagios, pack, ping, status, top, undo, undolog):
    main.add_command(_command)


if __name__ == "__main__":
    main()
