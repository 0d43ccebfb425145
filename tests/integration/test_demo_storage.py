"""A copy of production to play with: one zeod serves the file, another one a DemoStorage over it, at the same time."""

from pathlib import Path

from tests.fixtures_zeod import StartZeod
from tests.server.raw_client import RawClient
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, successor, unpack_id

DEMO_CONF = """
    <zeo>
        address 127.0.0.1:0
    </zeo>
    <demostorage>
        <filestorage>
            path Data.fs
            read-only yes
        </filestorage>
        {changes}
    </demostorage>
    """
CHANGES = """
        <filestorage changes>
            path changes.fs
            create yes
        </filestorage>
    """


def test_the_demo_goes_its_own_way(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "demo.conf").write_text(DEMO_CONF.format(changes=CHANGES))
    production = start_zeod("-f", "Data.fs")
    with RawClient(production.address) as writer:
        first = writer.commit({ROOT_OID: (ZERO_TID, b"production")})
        demo = start_zeod("-C", "demo.conf")
        assert "serves 1 (changes changes.fs over Data.fs)" in demo.banner
        with RawClient(demo.address) as player:
            assert player.last_tid == first
            assert player.invalidations() == []
            [oid] = player.call("new_oids", 1)
            assert unpack_id(oid) > 0
            # both go on from the same state, and neither sees what the other does
            later = writer.commit({ROOT_OID: (first, b"production goes on")})
            mine = player.commit({ROOT_OID: (first, b"demo"), oid: (ZERO_TID, b"new")})
            assert player.load(ROOT_OID) == (b"demo", mine, None)
            assert player.call("loadBefore", ROOT_OID, mine) == (b"production", first, mine)
            assert writer.load(ROOT_OID) == (b"production goes on", later, None)
        assert demo.stop() == 0
        again = start_zeod("-C", "demo.conf")
        with RawClient(again.address) as player:
            assert player.last_tid == mine
            assert player.call("getInvalidations", mine) == (mine, ())
            assert player.call("loadBefore", ROOT_OID, MAX_TID) == (b"demo", mine, None)
            assert player.call("loadBefore", ROOT_OID, successor(first)) == (b"production", first, mine)
        assert again.stop() == 0
    assert again.log_text().count("`create` has no effect") == 1


def test_changes_in_memory_are_gone_at_the_end(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "demo.conf").write_text(DEMO_CONF.format(changes=""))
    production = start_zeod("-f", "Data.fs")
    with RawClient(production.address) as writer:
        first = writer.commit({ROOT_OID: (ZERO_TID, b"production")})
    for _ in range(2):
        demo = start_zeod("-C", "demo.conf")
        with RawClient(demo.address) as player:
            assert player.load(ROOT_OID) == (b"production", first, None)
            player.commit({ROOT_OID: (first, b"demo")})
        assert demo.stop() == 0


def test_a_configuration_with_create_starts_a_second_time(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text(
        "<zeo>\naddress 127.0.0.1:0\n</zeo>\n<filestorage>\npath Data.fs\ncreate true\n</filestorage>\n"
    )
    server = start_zeod("-C", "zeo.conf")
    with RawClient(server.address) as client:
        tid = client.commit({ROOT_OID: (ZERO_TID, b"kept")})
    assert server.stop() == 0
    assert "create" not in server.log_text()
    again = start_zeod("-C", "zeo.conf")
    with RawClient(again.address) as client:
        assert client.load(ROOT_OID) == (b"kept", tid, None)
    assert again.stop() == 0
    warnings = [line for line in again.log_text().splitlines() if " WARNING " in line]
    assert len(warnings) == 1
    assert warnings[0].endswith("Data.fs: has data, and is opened as it is; `create` has no effect")
