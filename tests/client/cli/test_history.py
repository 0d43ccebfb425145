import json

import click
import pytest

import zeo_client
from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.history import parse_oid
from zeo_core.ids import pack_id


def test_the_transactions_of_an_object(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    with zeo_client.open(server.url) as db:
        for number in range(3):
            with db.transaction() as conn:
                conn.root()["key"] = number
        last = db.lastTransaction()
    status, out, _ = zeo("history", "-n", 2, "--json", server.url, "0x0")
    assert status == 0
    assert [line["tid"] == last.hex() for line in json.loads(out)] == [True, False]
    assert zeo("history", server.url, "0")[1].count("\n") == 5  # a heading, and the root's creation
    status, out, error = zeo("history", server.url, "99")
    assert (status, out) == (2, "")
    assert error.startswith("zeo: ")


def test_oids() -> None:
    assert parse_oid("0x1f") == parse_oid("31") == pack_id(31)
    for text in ("x", "", "-1", str(2**64)):
        with pytest.raises(click.BadParameter, match="is no oid"):
            parse_oid(text)
