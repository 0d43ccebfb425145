"""The command `zeod`: run the server."""

import contextlib
import dataclasses
import sys

import click

from zeo_core.errors import ConfigurationError
from zeo_server.config import DEFAULT_ADDRESS, DEFAULT_PATH, Configuration, file_storage, load, numbered, parse_address
from zeo_server.daemon import run
from zeo_server.preflight import preflight

__all__ = ["main"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-C", "--configure", "path", metavar="FILE", help="Read FILE, a zeo.conf.")
@click.option("-a", "--address", metavar="ADDRESS", help="Listen at HOST:PORT, PORT or the path of a Unix socket.")
@click.option("-f", "--filename", "paths", multiple=True, metavar="FILE", help="Serve FILE; repeat for storages 1, 2.")
@click.option("-t", "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Time from vote to finish [30].")
@click.option("--pid-file", metavar="FILE", help="Keep the process id in FILE.")
@click.option("--user", metavar="USER", help="Become USER, if started by root, when the address is bound.")
@click.option("--check", is_flag=True, help="Say whether zeod would start, and do not start.")
@click.option("-m", "--monitor", hidden=True)  # of ZEO before version 5; old start scripts have it
@click.version_option(package_name="zeod", message="zeod %(version)s")
def main(
    path: str | None,
    address: str | None,
    paths: tuple[str, ...],
    timeout: float | None,
    pid_file: str | None,
    user: str | None,
    check: bool,
    monitor: str | None,
) -> None:
    """Serve object databases to their clients.

    Without options, ./Data.fs on 127.0.0.1:9672. What the command line says overrides the configuration file.

    \b
    Examples:
      zeod -f Data.fs -a 9672
      zeod --check -C /etc/zeod/zeo.conf

    SIGTERM stops the server in order, SIGHUP has it read its configuration anew, SIGUSR2 reopens its log files. The
    exit status is 0 after a stop, 1 if it cannot start, 2 for a wrong option.
    """

    def configuration() -> Configuration:
        chosen = _configuration(path, address, paths, timeout, pid_file)
        return chosen if user is None else dataclasses.replace(chosen, user=user)

    if monitor is not None:
        print("zeod: --monitor has no effect: ask `zeo status`", file=sys.stderr)
    try:
        if check:
            _check(configuration())
        else:
            run(configuration(), _say, configuration if path is not None else None)
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


def _check(configuration: Configuration) -> None:
    report = preflight(configuration)
    limits = [f"a limit of its own: {limit}" for limit in configuration.limits.changed()]
    for line in (*configuration.warnings, *limits, *report.in_use):
        click.echo(f"note: {line}")
    for line in report.faults:
        click.echo(f"fault: {line}")
    if report.faults:
        raise ConfigurationError("would not start")
    click.echo("zeod would start" + (" when these are free" if report.in_use else ""))


def _say(line: str) -> None:
    # whoever started the server may have closed its standard output; that is no reason not to serve
    with contextlib.suppress(OSError):
        click.echo(line)


if __name__ == "__main__":
    main()
