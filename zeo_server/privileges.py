"""Serving as another user than root, where nobody else, such as systemd, sees to that."""

import os
import pwd

from zeo_core.errors import ConfigurationError

__all__ = ["become", "user_entry"]


def user_entry(name: str) -> pwd.struct_passwd:
    """Return a user's entry in the system's table; ConfigurationError if there is none."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigurationError(f"user {name}: there is no such user on this machine") from None


def become(name: str) -> None:
    """Be a user from now on, with the groups that it has, for good; ConfigurationError if that cannot be.

    Nothing happens where it is that user already, so that one configuration serves root and the user.
    """
    entry = user_entry(name)
    if os.geteuid() == entry.pw_uid:
        return
    try:
        os.setgroups(os.getgrouplist(name, entry.pw_gid))  # while root still may
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except OSError as error:
        raise ConfigurationError(f"user {name}: only root can become another user ({error.strerror})") from error
