import json

import zeo_client
from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod


def test_what_may_be_undone(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    with zeo_client.open(server.url) as db:
        for number in range(3):
            with db.transaction() as conn:
                conn.root()["key"] = number
        last = db.lastTransaction()
    status, out, _ = zeo("undolog", "-n", 2, "--json", server.url)
    assert status == 0
    assert [line["tid"] == last.hex() for line in json.loads(out)] == [True, False]
    assert last.hex() in zeo("undolog", server.url)[1]
