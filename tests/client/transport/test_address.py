from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeo_client.transport.address import Address, parse_address, parse_addresses
from zeo_core.errors import ConfigurationError

GOOD: list[tuple[Any, Address]] = [
    (9672, Address("127.0.0.1", 9672)),
    ("9672", Address("127.0.0.1", 9672)),
    ("db1:9672", Address("db1", 9672)),
    (":9672", Address("127.0.0.1", 9672)),
    ("[::1]:9672", Address("::1", 9672)),
    ("::1:9672", Address("::1", 9672)),
    (("db1", 9672), Address("db1", 9672)),
    (("", 9672), Address("127.0.0.1", 9672)),
    (("::1", 1), Address("::1", 1)),
    (("db1", 65535), Address("db1", 65535)),
    ("/run/zeod.sock", Address("", 0, "/run/zeod.sock")),
    ("./zeod.sock", Address("", 0, "./zeod.sock")),
    ("/run/zeod:9672", Address("", 0, "/run/zeod:9672")),
    (Address("db1", 1), Address("db1", 1)),
]


@pytest.mark.parametrize(("where", "address"), GOOD)
def test_an_address_is_what_people_write(where: Any, address: Address) -> None:
    assert parse_address(where) == address
    assert parse_address(str(address)) == address


BAD: list[Any] = [
    "",
    "db1",
    "db1:",
    "db1:http",
    "db1:0",
    "db1:65536",
    "db1:-1",
    "db1:9672 ",
    "db1:\u00b2",  # a digit, but no number
    "db1:\u0663",  # a number, but nobody means it
    "\u00b2",
    "[::1]",
    "[::1:9672",
    "::1]:9672",
    "/run/" + "x" * 120,  # longer than the system takes
    "/run/\0zeod",
    "db1\0:9672",
    "db1..example:9672",
    "/run/\ud800",
    0,
    -1,
    65536,
    True,
    1.5,
    None,
    b"db1:9672",
    ("db1",),
    ("db1", "9672"),
    ("db1", True),
    ("db1", 0),
    (1, 9672),
    ("db1", 9672, "x"),
    (),
    ["db1:9672"],
    {"host": "db1"},
]


@pytest.mark.parametrize("where", BAD)
def test_what_is_no_address_is_named(where: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(where)
    assert repr(where) in str(caught.value)


@given(st.one_of(st.text(), st.integers(), st.tuples(st.text(), st.integers()), st.binary(), st.none()))
def test_anything_is_an_address_or_a_configuration_error(where: Any) -> None:
    try:
        address = parse_address(where)
    except ConfigurationError:
        return
    assert address.path or 0 < address.port < 65536


def test_several_servers() -> None:
    assert parse_addresses(["db1:1", ("db2", 2), 3, "/run/4"]) == [
        Address("db1", 1),
        Address("db2", 2),
        Address("127.0.0.1", 3),
        Address("", 0, "/run/4"),
    ]
    assert parse_addresses("db1:1") == [Address("db1", 1)]
    assert parse_addresses(("db1", 1)) == [Address("db1", 1)]


def test_no_server_at_all() -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        parse_addresses([])
