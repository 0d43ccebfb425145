"""Rules, the roles they give, and what each role may call, over a socket."""

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.blob_server import blob_storage
from tests.server.in_process import InProcess, in_process
from tests.server.raw_client import RawClient
from zeo_core.commit_marker import MARKER_BYTES
from zeo_core.errors import AccessDeniedError, ReadOnlyError, ZeodError
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id
from zeo_core.roles import ClientRole
from zeo_core.wire.methods import CLIENT_CALLS
from zeo_server.access import (
    AccessRules,
    AnybodyRule,
    CertificateRule,
    UnixUserRule,
    anybody_rule,
    certificate_rule,
    unix_user_rule,
)
from zeo_server.peer import Peer
from zeo_server.storages.mapping import MappingStorage

READER, WRITER, ADMIN = ClientRole


def holder(*names: str) -> Peer:
    return Peer(frozenset(names))


# -- rules ------------------------------------------------------------------------------------------------------------


def test_lines() -> None:
    assert certificate_rule("alice.example.org  admin") == CertificateRule("alice.example.org", ADMIN)
    assert certificate_rule('"Alice Smith" writer main temp') == CertificateRule(
        "alice smith", WRITER, ("main", "temp")
    )
    assert unix_user_rule("1234 reader") == UnixUserRule(1234, READER)
    me = pwd.getpwuid(os.getuid()).pw_name
    assert unix_user_rule(f"{me} admin") == UnixUserRule(os.getuid(), ADMIN)
    assert anybody_rule("reader main") == AnybodyRule(READER, ("main",))


@pytest.mark.parametrize(
    ("read", "line", "fault"),
    [
        (certificate_rule, "alice", r"'alice' is no rule: certificate NAME ROLE \[STORAGE\.\.\.\]"),
        (certificate_rule, "alice owner", "'owner' is no role: reader, writer, admin"),
        (certificate_rule, "a*.example.org admin", "an asterisk can only stand for the first label"),
        (certificate_rule, '"alice admin', "No closing quotation"),
        (unix_user_rule, "nobody-of-that-name admin", "unix-user nobody-of-that-name: there is no such user"),
        (anybody_rule, "", "is no rule: anybody ROLE"),
        (anybody_rule, "main", "'main' is no role"),
    ],
)
def test_lines_that_are_no_rules(read: Callable[[str], object], line: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(line)


def test_the_names_of_certificates() -> None:
    rule = CertificateRule("alice.example.org", ADMIN)
    assert rule.fits(holder("other", "alice.example.org"))
    assert not rule.fits(holder("bob.example.org"))
    assert not rule.fits(Peer())
    pattern = CertificateRule("*.example.org", ADMIN)
    assert pattern.fits(holder("bob.example.org"))
    for name in ("example.org", ".example.org", "a.b.example.org", "bobexample.org", "bob.example.org.evil.com"):
        assert not pattern.fits(holder(name)), name


def test_the_highest_role_counts_for_each_storage() -> None:
    rules = AccessRules(
        (
            CertificateRule("alice", ADMIN, ("main",)),
            UnixUserRule(7, WRITER),
            AnybodyRule(READER, ("main", "temp")),
        )
    )
    assert rules.role(holder("alice"), "main") is ADMIN
    assert rules.role(holder("alice"), "temp") is READER
    assert rules.role(holder("alice"), "other") is None
    assert rules.role(Peer(uid=7), "main") is WRITER
    assert rules.role(Peer(uid=7), "other") is WRITER
    assert rules.role(Peer(uid=8), "main") is READER
    assert rules.role(Peer(), "other") is None
    assert rules.unknown_storages(["main"]) == ["temp"]
    assert rules.need_certificates()
    assert not AccessRules((AnybodyRule(READER),)).need_certificates()


# -- what a role may call ---------------------------------------------------------------------------------------------

OTHERS = {"register"}  # called once, before there is a role
ARGUMENTS: dict[str, object] = {
    "oid": ROOT_OID,
    "tid": None,
    "serial": ZERO_TID,
    "data": b"x",
    "txn": 7,
    "prev_txn": None,
    "time": 0.0,
    "user": "",
    "description": "",
    "extension": {},
    "status": " ",
    "filename": "a.tmp",
    "label": "me",
    "transaction_id": b"",
    "chunk": b"",
    "iterator": 0,
    "iterators": (),
    "oids": (ROOT_OID,),
    "marker": b"x" * MARKER_BYTES,
    "since": ZERO_TID,
}


def fitting(name: str) -> list[object]:
    """Return arguments of a method that fit; it is the server's own matter whether there is such an object."""
    arguments = [ARGUMENTS[argument.name] for argument in CLIENT_CALLS[name].arguments if not argument.optional]
    if name in ("getInvalidations", "loadBefore", "load_many", "iterator_record_start"):
        return [ZERO_TID if argument is None else argument for argument in arguments]
    return arguments


def refusals(client: RawClient) -> set[str]:
    """The methods that are refused for the sake of the role."""
    refused = set()
    for name in set(CLIENT_CALLS) - OTHERS:
        arguments = fitting(name)
        try:
            client.call(name, *arguments)
        except (ReadOnlyError, AccessDeniedError):
            refused.add(name)
        except (ZeodError, KeyError, ValueError):
            pass
    return refused


@pytest.mark.parametrize("role", ClientRole)
def test_every_method_is_open_to_who_has_its_role_and_to_nobody_else(role: ClientRole) -> None:
    with (
        in_process(access=AccessRules((AnybodyRule(role),))) as server,
        server.client(read_only=role is READER) as client,
    ):
        assert refusals(client) == {name for name, method in CLIENT_CALLS.items() if method.role > role}


def test_without_rules_everybody_may_do_everything() -> None:
    with in_process() as server, server.client() as client, server.client(read_only=True) as reader:
        assert refusals(client) == set()
        assert refusals(reader) == {name for name, method in CLIENT_CALLS.items() if method.role > READER}


def test_who_registers_for_reading_may_only_read_whatever_the_rules() -> None:
    with in_process(access=AccessRules((AnybodyRule(ADMIN),))) as server, server.client(read_only=True) as client:
        assert refusals(client) == {name for name, method in CLIENT_CALLS.items() if method.role > READER}


@pytest.fixture
def writers() -> Iterator[InProcess]:
    """A server on which everybody is a writer."""
    with in_process(access=AccessRules((AnybodyRule(WRITER),))) as server:
        yield server


def test_the_error_says_which_role_is_needed(writers: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    with writers.client() as client, pytest.raises(AccessDeniedError) as caught:
        client.call("pack", 0.0)
    assert str(caught.value) == "pack needs the role admin, and this client is connected as writer"
    assert sum("pack refused: pack needs the role admin" in line for line in caplog.messages) == 1


A, B = pack_id(1), pack_id(2)
REFUSED_PARTS: dict[str, tuple[object, ...]] = {
    "undoa": (b"\0" * 8, 1),
    "deleteObject": (A, ZERO_TID, 1),
    "restorea": (A, ZERO_TID, b"x", None, 1),
}


@pytest.mark.parametrize("method", REFUSED_PARTS)
def test_a_transaction_does_not_commit_without_its_refused_part(writers: InProcess, method: str) -> None:
    with writers.client() as client:
        client.begin(1, {B: (ZERO_TID, b"with it")})
        client.one_way(method, *REFUSED_PARTS[method])
        client.one_way("storea", B, ZERO_TID, b"after it", 1)
        with pytest.raises(AccessDeniedError, match=f"{method} needs the role admin"):
            client.call("vote", 1)
        assert client.call("lastTransaction") == ZERO_TID
        client.commit({B: (ZERO_TID, b"by itself")}, txn=2)


def test_a_refused_blob_is_followed_by_others(tmp_path: Path) -> None:
    rules = AccessRules((AnybodyRule(WRITER),))
    with in_process({"1": blob_storage(tmp_path)}, access=rules) as server, server.client() as client:
        client.begin(1, {})
        client.one_way("storeBlobStart")
        client.one_way("restoreBlobEnd", A, b"a record", None, 1)
        with pytest.raises(AccessDeniedError, match="restoreBlobEnd needs the role admin"):
            client.call("vote", 1)
        client.begin(2, {})
        client.one_way("storeBlobStart")
        client.one_way("storeBlobEnd", A, ZERO_TID, b"a record", 2)
        client.call("vote", 2)
        tid = client.call("tpc_finish", 2)
        assert client.load(A) == (b"a record", tid, None)


def test_a_transaction_under_a_tid_of_its_own_is_refused(writers: InProcess) -> None:
    with writers.client() as client:
        client.one_way("tpc_begin", 1, "", "", {}, b"\x7f" * 8, " ")
        client.one_way("storea", A, ZERO_TID, b"x", 1)
        with pytest.raises(AccessDeniedError, match="tpc_begin needs the role admin"):
            client.call("vote", 1)


def test_a_refused_part_of_what_has_voted_ends_the_connection(writers: InProcess) -> None:
    with writers.client() as client, writers.client() as other:
        client.begin(1, {A: (ZERO_TID, b"voted")})
        client.call("vote", 1)
        client.one_way("undoa", b"\0" * 8, 1)
        client.wait_closed()
        assert other.call("lastTransaction") == ZERO_TID
        other.commit({A: (ZERO_TID, b"free again")})


# -- who is let in ----------------------------------------------------------------------------------------------------


def test_who_has_no_role_is_refused_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    rules = AccessRules((AnybodyRule(READER, ("open",)),))
    storages = {"open": MappingStorage(), "closed": MappingStorage()}
    with in_process(storages, access=rules) as server, server.client(register=False) as client:
        for name in ("closed", "not there"):
            caplog.clear()
            with pytest.raises(AccessDeniedError, match=f"no role for storage {name}"):
                client.call("register", name, True)
            assert sum("register refused: no role" in line for line in caplog.messages) == 1
        with pytest.raises(ReadOnlyError, match="may only be read by this client"):
            client.call("register", "open", False)
        client.call("register", "open", True)
        with pytest.raises(ReadOnlyError):
            client.call("new_oids")


def test_the_user_of_a_unix_socket(tmp_path: Path) -> None:
    address = str(tmp_path / "zeod.sock")
    rules = AccessRules((UnixUserRule(os.getuid(), WRITER), UnixUserRule(os.getuid() + 1, ADMIN)))
    with in_process(address=address, access=rules) as server, server.client() as client:
        client.commit({A: (ZERO_TID, b"x")})
        with pytest.raises(AccessDeniedError):
            client.call("pack", 0.0)


def test_new_rules_are_for_who_comes_from_now_on(writers: InProcess) -> None:
    with writers.client() as before:
        writers.service.access = AccessRules((AnybodyRule(READER),))
        with writers.client(register=False) as after:
            with pytest.raises(ReadOnlyError):
                after.call("register", "1", False)
            after.call("register", "1", True)
            before.commit({A: (ZERO_TID, b"x")})
