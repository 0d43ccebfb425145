"""The options of a ClientStorage, as configurations and URIs give them: those of ZEO's, some without a meaning here."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["effective_options", "note_obsolete"]

logger = logging.getLogger(__name__)


def effective_options(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that ClientStorage has, of those that were given (None is not given).

    The others are options of ZEO's client without a meaning here. They are named in the log unless they are turned off,
    with `where`, the section or URI that they stand in.
    """
    from zeo_client.storage import ClientStorage  # a program on a file alone has no use for sockets

    known = inspect.signature(ClientStorage.__init__).parameters.values()
    names = {parameter.name for parameter in known}
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known)
    given = {name: value for name, value in options.items() if value is not None}
    without_effect = [name for name, value in given.items() if value and name not in names and not takes_all]
    if without_effect:
        logger.warning("%s: %s: no effect", where, ", ".join(name.replace("_", "-") for name in without_effect))
    return {name: value for name, value in given.items() if takes_all or name in names}


def note_obsolete(name: str, **options: object) -> None:
    """Say in the log, for who debugs, which options of ZEO's client were given to the storage `name` for nothing."""
    given = [option for option, value in options.items() if value is not None]
    if given:
        logger.debug("%s: %s: no effect", name, ", ".join(given))
