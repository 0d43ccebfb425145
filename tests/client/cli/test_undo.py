import click
import pytest

import zeo_client
from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.undo import parse_tid


def test_transactions_are_taken_back(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    tids = []
    storage = zeo_client.ClientStorage(server.url.removeprefix("zeo://"))
    with zeo_client.DB(storage) as db:
        for number in range(3):
            with db.transaction() as conn:
                conn.root()["key"] = number
            tids.append(db.lastTransaction().hex())
        status, out, error = zeo("undo", server.url, tids[1])  # what it wrote was changed since
        assert (status, out) == (2, "")
        assert error.startswith("zeo: ")
        status, out, _ = zeo("undo", "--user", "ada", server.url, tids[2], tids[1])
        assert status == 0
        assert "undone, 1 objects changed by transaction " in out
        storage.ping()  # behind it, what others committed is known
        with db.transaction() as conn:
            assert conn.root()["key"] == 0
        assert db.undoLog(0, 1)[0]["user_name"] == "ada"


def test_tids() -> None:
    assert parse_tid("0x03f4d2a1b6c7e899") == parse_tid("03f4d2a1b6c7e899") == bytes.fromhex("03f4d2a1b6c7e899")
    for text in ("", "3", "x" * 16, "0" * 18):
        with pytest.raises(click.BadParameter, match="is no tid"):
            parse_tid(text)
