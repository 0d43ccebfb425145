"""The command `zeod`: run the server."""

import contextlib
import dataclasses
import sys

import click

from zeo_core.errors import ConfigurationError
from zeo_server.config import DEFAULT_ADDRESS, DEFAULT_PATH, Configuration, file_storage, load, numbered, parse_address
from zeo_server.daemon import run

__all__ = ["main"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-C", "--configure", "path", metavar="FILE", help="Read FILE, a zeo.conf.")
@click.option("-a", "--address", metavar="ADDRESS", help="Listen at HOST:PORT, PORT or the path of a Unix socket.")
@click.option("-f", "--filename", "paths", multiple=True, metavar="FILE", help="Serve FILE; repeat for storages 1, 2.")
@click.option("-t", "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Time from vote to finish [30].")
@click.option("--pid-file", metavar="FILE", help="Keep the process id in FILE.")
@click.version_option(package_name="zeod", message="zeod %(version)s")
def main(
    path: str | None, address: str | None, paths: tuple[str, ...], timeout: float | None, pid_file: str | None
) -> None:
    """Serve object databases to their clients.

    Without options, ./Data.fs on 127.0.0.1:9672. What the command line says overrides the configuration file.
    """
    try:
        run(_configuration(path, address, paths, timeout, pid_file), _say)
    except ConfigurationError as error:
        print(f"zeod: {error}", file=sys.stderr)
        sys.exit(1)


def _configuration(
    path: str | None, address: str | None, paths: tuple[str, ...], timeout: float | None, pid_file: str | None
) -> Configuration:
    if path is None:
        configuration = Configuration(DEFAULT_ADDRESS, numbered([file_storage("", DEFAULT_PATH)], "zeod"))
    else:
        configuration = load(path)
    if address is not None:
        configuration = dataclasses.replace(configuration, address=parse_address(address))
    if paths:
        storages = tuple(file_storage(str(number), file) for number, file in enumerate(paths, 1))
        configuration = dataclasses.replace(configuration, storages=storages)
    if timeout is not None:
        configuration = dataclasses.replace(configuration, transaction_timeout_s=timeout)
    if pid_file is not None:
        configuration = dataclasses.replace(configuration, pid_filename=pid_file)
    return configuration


def _say(line: str) -> None:
    # whoever started the server may have closed its standard output; that is no reason not to serve
    with contextlib.suppress(OSError):
        click.echo(line)


if __name__ == "__main__":
    main()
