"""What cannot be pickled: where it stands, and what is said about it."""

import io
import queue
import threading
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from BTrees.OOBTree import OOBTree
from persistent import Persistent

import zeo_client
from tests.client.objects import Node, Plain, Slotted
from zeo_client.broken import find_class
from zeo_client.db import DB
from zeo_core.errors import UnpicklableError


@pytest.fixture
def db() -> Iterator[DB]:
    with zeo_client.open("memory://") as db:
        yield db


def refused(db: DB, obj: Any) -> UnpicklableError:
    with pytest.raises(UnpicklableError) as info, db.transaction() as conn:
        conn.root.x = obj
    return info.value


def generator() -> Iterator[int]:
    yield 1


def local_class() -> Any:
    class Local:
        pass

    return Local


class Hidden:
    """Has a lock, and does not store it; what it stores instead is given to it."""

    def __init__(self, stored: Any) -> None:
        self.lock, self.stored = threading.Lock(), stored

    def __getstate__(self) -> Any:
        return {"stored": self.stored}


class Reduced:
    """Has a lock, and is stored as the call of a function."""

    def __init__(self, arg: Any = None) -> None:
        self.lock, self.arg = threading.Lock(), arg

    def __reduce__(self) -> Any:
        return Reduced, (self.arg,)


class Refusing:
    """Says itself that it is not to be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("not this one")


class OwnState(Persistent):
    """Persistent, with a state of its own making."""

    def __getstate__(self) -> Any:
        return {"made": [threading.Lock()]}


def in_a_cycle() -> Plain:
    parent = Plain()
    parent.child = Plain(parent=parent)  # type: ignore[attr-defined]
    parent.lock = threading.Lock()  # type: ignore[attr-defined]
    return parent


def deep(levels: int, end: Any) -> Any:
    for _ in range(levels):
        end = [end]
    return end


LAMBDA = lambda: None  # noqa: E731 - what users have


@pytest.mark.parametrize(
    ("obj", "path", "advice"),
    [
        (Node(x=LAMBDA), ".x", "a lambda, defined at "),
        (Node(x=local_class), ".x", ""),  # a function that can be named is no fault, see below
        (Node(x=[threading.Lock()]), ".x[0]", "begins with _v_"),
        (Node(x=generator()), ".x", "a list of what it yields"),
        (Node(x=io.BytesIO().getbuffer()), ".x", "a list, a dictionary or bytes"),
        (Node(x={}.keys()), ".x", "a list, a dictionary or bytes"),
        (Node(x=types), ".x", "the module types cannot be pickled; import it where it is used"),
        (Node(x=weakref.ref(Plain)), ".x", "persistent.wref.WeakRef"),
        (Node(x=local_class()), ".x", "define the class Local at the top level"),
        (Node(x=local_class()()), ".x", "define the class Local at the top level"),
        (Node(x={"a": 1, (2, "b"): generator()}), ".x[(2, 'b')]", "generator"),
        (Node(x={LAMBDA: 1}), ".x, key <builtins.function>", "a lambda"),
        (Node(x={LAMBDA}), ".x, element <builtins.function>", "a lambda"),
        (Node(a=Hidden(1), b=Hidden([generator()])), ".b.__getstate__()['stored'][0]", "generator"),
        (Node(a=Reduced(1), b=Reduced(generator())), ".b.__reduce__()[1][0]", "generator"),
        (Node(x=Plain(y=Refusing())), ".x.y", "tests.client.test_unpicklable.Refusing cannot be pickled"),
        (Node(x=in_a_cycle()), ".x.lock", "begins with _v_"),
        (Node(x=deep(15, generator())), ".x" + "[0]" * 15, "generator"),
        (Slotted(1, {"a": threading.RLock()}), ".right['a']", "begins with _v_"),
        (OwnState(), ".__getstate__()['made'][0]", "begins with _v_"),
        (OOBTree({"a": 1, "b": generator()}), "['b']", "generator"),
        # Not the lock deep inside of it: nobody put it there knowingly.
        (Node(x=queue.Queue(), x2=1), ".x", "the class queue.Queue"),
        (Node(x=threading.Thread()), ".x", "the class threading.Thread"),
    ],
)
def test_it_is_found_and_advised_on(db: DB, obj: Any, path: str, advice: str) -> None:
    if not advice:
        with db.transaction() as conn:
            conn.root.x = obj
        return
    error = refused(db, obj)
    assert error.path == path
    assert advice in error.reason


def test_an_open_file(db: DB, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        error = refused(db, Node(log=file))
    assert error.path == ".log"
    assert "zeo_client.Blob" in error.reason


def test_a_connection_is_not_looked_into(db: DB) -> None:
    error = refused(db, Node(good=1, db=db))
    assert error.path == ".db"
    assert "zeo_client.db.DB" in error.reason


def test_what_stands_beside_a_librarys_object_is_not_taken_for_it(db: DB) -> None:
    class_of_a_library = io.StringIO("can be pickled")
    error = refused(db, Node(x=class_of_a_library, x2=[generator()]))
    assert error.path == ".x2[0]"


def test_placeholders_are_not_blamed(db: DB) -> None:
    placeholder = find_class("a.module.that.is.gone", "Gone")()
    error = refused(db, Node(a=placeholder, b=generator()))
    assert error.path == ".b"


def test_a_state_that_is_nested_too_deeply_is_said_to_be(db: DB) -> None:
    error = refused(db, Node(x=deep(100_000, 1)))
    assert error.path == ""
    assert "nested too deeply; make its parts persistent" in error.reason


def test_the_error_that_users_know_is_still_in_the_text(db: DB) -> None:
    assert "cannot pickle '_thread.lock' object" in str(refused(db, Node(x=threading.Lock())))


def test_a_class_that_cannot_be_found_by_its_name_is_named(db: DB) -> None:
    class Local(Persistent):
        pass

    error = refused(db, Local())  # met first where it is referred to, since a reference names the class
    assert (error.class_name, error.path) == ("persistent.mapping.PersistentMapping", ".data['x']")
    assert "define the class Local at the top level of a module" in error.reason


def test_looking_for_it_is_harmless_and_ends(db: DB) -> None:
    error = refused(db, Node(x=[[] for _ in range(200_500)], y=generator()))
    assert error.path == ""  # too far away: better none than one that is wrong
    assert "cannot pickle 'generator' object" in error.reason
