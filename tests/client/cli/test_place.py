import click
import pytest

from zeo_client.cli.place import Place, connect, parse_place
from zeo_client.transport.address import Address
from zeo_core.errors import ClientDisconnected


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9672", Place(Address("127.0.0.1", 9672), "")),
        ("db:9000", Place(Address("db", 9000), "")),
        ("/run/zeod.sock", Place(Address("", 0, "/run/zeod.sock"), "")),
        ("zeo://db", Place(Address("db", 9672), "")),
        ("zeo://db:9000/main", Place(Address("db", 9000), "main")),
        ("zeo://[::1]:9000/two%20words", Place(Address("::1", 9000), "two words")),
        ("zeo:///run/zeod.sock?storage=main", Place(Address("", 0, "/run/zeod.sock"), "main")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place
    assert place.storage_or_default == (place.storage or "1")


@pytest.mark.parametrize("text", ["", "nowhere", "db:port", "zeo://:nine"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_place(text)


def test_nobody_there() -> None:
    with pytest.raises(ClientDisconnected):
        connect(parse_place("127.0.0.1:1"), 0.1, read_only=True)
