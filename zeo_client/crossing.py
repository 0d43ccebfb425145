"""References from one database's objects to another's: which may be stored, and what is wrong with the others."""

from typing import Any, NoReturn

from zeo_core.errors import InvalidObjectReference
from zeo_core.ids import oid_repr

__all__ = ["crossed_into"]


def crossed_into(jar: Any, referrer: Any, obj: Any) -> str:
    """Return the name of the database that `obj` belongs to, if `referrer`, of the connection `jar`, may refer to it.

    It may if `obj` was got through the connection that is open together with `jar`, and it is clear that it belongs
    there. InvalidObjectReference otherwise.
    """
    db, other_jar = jar.db(), obj._p_jar
    try:
        other = other_jar.db()
        name: str = other.database_name
    except AttributeError:
        other, name = None, ""
    if other is None or (other is not db and db.databases.get(name) is not other):
        _refuse(jar, referrer, obj, "the two databases do not know each other: open them with one `databases` mapping")
    if jar.connections.get(name) is not other_jar:
        get = "get it through this one (conn.get(oid) or from conn.root())"
        if other is not db:
            get = f"get it through the one that is open with this one, conn.get_connection({name!r})"
        _refuse(jar, referrer, obj, f"an object belongs to one connection: {get} or store a copy")
    if not db.xrefs:
        _refuse(jar, referrer, obj, f"database {db.database_name!r} was opened without xrefs, and refers to no others")
    if other_jar.implicitly_added(obj._p_oid):
        reason = (
            "it is new and reachable from several databases, so that it is not clear where it belongs:"
            " add it to one of the connections (conn.add(obj)) or commit before it is referred to from the second"
        )
        _refuse(jar, referrer, obj, reason)
    return name


def _refuse(jar: Any, referrer: Any, obj: Any, reason: str) -> NoReturn:
    raise InvalidObjectReference(
        f"{_named(referrer)}, of {_belonging(jar)}, refers to {_named(obj)}, of {_belonging(obj._p_jar)}; {reason}"
    )


def _named(obj: Any) -> str:
    return f"{type(obj).__module__}.{type(obj).__qualname__} with oid {oid_repr(obj._p_oid)}"


def _belonging(jar: Any) -> str:
    """Say to what an object belongs."""
    try:
        return f"a connection to the database {jar.db().database_name!r} ({jar!r})"
    except AttributeError:
        return repr(jar)
