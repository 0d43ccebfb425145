"""Who may do what: the rules of an <access> section, which give roles to clients, for all storages or for some.

A rule is for the holder of a certificate, for the user at the other end of a Unix socket, or for anybody. Whoever fits
several rules has the highest role that they give, so that the order of the lines means nothing; whoever fits none is
refused.
"""

import pwd
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from zeo_core.roles import ClientRole
from zeo_server.peer import Peer

__all__ = [
    "AccessRules",
    "AnybodyRule",
    "CertificateRule",
    "Rule",
    "UnixUserRule",
    "access_section",
    "anybody_rule",
    "certificate_rule",
    "unix_user_rule",
]

_ROLES = {str(role): role for role in ClientRole}


class Rule(Protocol):
    """Gives `role` for `storages`, for all if there are none, to the peers that it fits."""

    @property
    def role(self) -> ClientRole:
        """What the peers may do."""

    @property
    def storages(self) -> tuple[str, ...]:
        """The names of the storages that the rule is about."""

    def fits(self, peer: Peer) -> bool:
        """Tell whether the rule is about this peer."""


@dataclass(frozen=True, slots=True)
class CertificateRule:
    """For who has a certificate of that name; *.example.org stands for every name with one label in its place."""

    name: str
    role: ClientRole
    storages: tuple[str, ...] = ()

    def fits(self, peer: Peer) -> bool:
        """Tell whether one of the names in the certificate is this one."""
        if not self.name.startswith("*."):
            return self.name in peer.names
        return any(
            label and f"*.{rest}" == self.name for label, _, rest in (name.partition(".") for name in peer.names)
        )


@dataclass(frozen=True, slots=True)
class UnixUserRule:
    """For the processes of a user who connect to a Unix socket."""

    uid: int
    role: ClientRole
    storages: tuple[str, ...] = ()

    def fits(self, peer: Peer) -> bool:
        """Tell whether it is a process of this user."""
        return peer.uid == self.uid


@dataclass(frozen=True, slots=True)
class AnybodyRule:
    """For everybody who can connect."""

    role: ClientRole
    storages: tuple[str, ...] = ()

    def fits(self, _peer: Peer) -> bool:
        """Tell that it does."""
        return True


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The rules of one server."""

    rules: tuple[Rule, ...]

    def role(self, peer: Peer, storage: str) -> ClientRole | None:
        """Return the highest role that `peer` is given for a storage, None if it is given none."""
        return max(
            (rule.role for rule in self.rules if (not rule.storages or storage in rule.storages) and rule.fits(peer)),
            default=None,
        )

    def unknown_storages(self, known: Iterable[str]) -> list[str]:
        """Return the names of storages in the rules that are not `known`."""
        return sorted({name for rule in self.rules for name in rule.storages}.difference(known))

    def need_certificates(self) -> bool:
        """Tell whether there are rules about certificates."""
        return any(isinstance(rule, CertificateRule) for rule in self.rules)


def access_section(section: Any) -> AccessRules:
    """Make the rules of an <access>, as ZConfig wants it."""
    rules = (*section.certificate, *section.unix_user, *section.anybody)
    if not rules:
        raise ValueError("<access>: without a line nobody may do anything")
    return AccessRules(rules)


def certificate_rule(text: str) -> CertificateRule:
    """Read the line `certificate NAME ROLE [STORAGE...]`."""
    name, role, storages = _words(text, "certificate NAME")
    if "*" in name.removeprefix("*."):
        raise ValueError(f"certificate {name}: an asterisk can only stand for the first label, as in *.example.org")
    return CertificateRule(name.lower(), role, storages)


def unix_user_rule(text: str) -> UnixUserRule:
    """Read the line `unix-user NAME-OR-NUMBER ROLE [STORAGE...]`."""
    name, role, storages = _words(text, "unix-user NAME")
    if name.isdecimal():
        return UnixUserRule(int(name), role, storages)
    try:
        return UnixUserRule(pwd.getpwnam(name).pw_uid, role, storages)
    except KeyError:
        raise ValueError(f"unix-user {name}: there is no such user on this machine") from None


def anybody_rule(text: str) -> AnybodyRule:
    """Read the line `anybody ROLE [STORAGE...]`."""
    _, role, storages = _words(f"anybody {text}", "anybody")
    return AnybodyRule(role, storages)


def _words(text: str, form: str) -> tuple[str, ClientRole, tuple[str, ...]]:
    """Return who, the role, and the storages; names with spaces are in quotes."""
    words = shlex.split(text)
    if len(words) < 2:
        raise ValueError(f"{text!r} is no rule: {form} ROLE [STORAGE...]")
    who, role, *storages = words
    if role not in _ROLES:
        raise ValueError(f"{role!r} is no role: {', '.join(_ROLES)}")
    return who, _ROLES[role], tuple(storages)
