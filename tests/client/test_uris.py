"""Databases by URI."""

import logging
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import ZODB
import zodburi

import zeo_client
import zeo_client.storage
from zeo_client.uris import db_options, place_of, scheme_of, zodburi_resolver
from zeo_core.errors import ConfigurationError
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize(
    ("where", "scheme"),
    [
        ("zeo://db1", "zeo"),
        ("zeod+file:///Data.fs", "zeod+file"),
        ("demo:(file:///a)/(memory://)", "demo"),
        ("zeod+demo:(file:///a)/(memory://)", "zeod+demo"),
        ("Data.fs", None),
        ("/a/b:c", None),
    ],
)
def test_schemes(where: str, scheme: str | None) -> None:
    assert scheme_of(where) == scheme


Called = tuple[object, dict[str, Any]]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Called]:
    """Return what ClientStorage would be called with; no server is needed for that."""

    class Recorded(Exception):
        """Carries it."""

    def client_storage(address: object, **options: Any) -> None:
        raise Recorded(address, options)

    monkeypatch.setattr(zeo_client.storage, "ClientStorage", client_storage)

    def connect(uri: str) -> Called:
        with pytest.raises(Recorded) as info:
            place_of(uri).open_storage()
        address, options = info.value.args
        return address, options

    return connect


def test_the_options_of_a_server(connected: Callable[[str], Called]) -> None:
    query = "storage=main&cache_size=30MB&wait=off&wait_timeout=2.5&read_only=1&client_label=me&blob_cache_size=1gb"
    query += "&cache=/c&memory_cache_size=1kb"
    address, options = connected(f"zeo://db1:9000?{query}")
    assert address == ("db1", 9000)
    assert options == {
        "storage": "main",
        "cache_size": 30 << 20,
        "wait": False,
        "wait_timeout": 2.5,
        "read_only": True,
        "client_label": "me",
        "blob_cache_size": 1 << 30,
        "cache": "/c",
        "memory_cache_size": 1 << 10,
    }
    assert connected("zeod://db1/other?wait_for_server_on_startup=0") == (
        ("db1", 9672),
        {"storage": "other", "wait": False},
    )
    assert connected("zeo:///run/zeod%20.sock?storage=x&debug=1") == ("/run/zeod .sock", {"storage": "x"})


def test_several_servers(connected: Callable[[str], Called]) -> None:
    assert connected("zeo://db1:9000,db2,[::1]:9001/main?read_only_fallback=1&min_disconnect_poll=0.5") == (
        [("db1", 9000), ("db2", 9672), ("::1", 9001)],
        {"storage": "main", "read_only_fallback": True, "min_disconnect_poll": 0.5},
    )


def test_the_options_of_a_database() -> None:
    uri = (
        "memory://a?connection_pool_size=3&connection_cache_size_bytes=1MB&database_name=main&connection_pool_timeout=9"
    )
    place = place_of(uri)
    assert db_options(place, uri) == {
        "pool_size": 3,
        "cache_size_bytes": 1 << 20,
        "database_name": "main",
        "pool_timeout": 9,
    }
    with zeo_client.open("memory://?xrefs=no") as db:
        assert not db.xrefs
    with zeo_client.open(uri, pool_size=4) as db:
        assert (db.getPoolSize(), db.getCacheSizeBytes(), db.database_name) == (4, 1 << 20, "main")
        assert db.getName() == "a"


def test_the_options_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "with space.fs"
    uri = f"file://{tmp_path}/with%20space.fs?quota=1mb&blobstorage_dir={tmp_path}/blobs&connection_cache_size=7"
    with zeo_client.open(uri) as db:
        assert path.exists()
        assert (tmp_path / "blobs").is_dir()
        assert db.getCacheSize() == 7
        with db.transaction() as conn:
            conn.root.a = 1
        storage: Any = db.storage
        assert storage._quota == 1 << 20
    with zeo_client.open(f"file://{tmp_path}/with%20space.fs?read_only=true") as db:
        assert db.storage.read_only()
    size = path.stat().st_size
    with zeo_client.open(f"file://{tmp_path}/with%20space.fs?demostorage=1") as db, db.transaction() as conn:
        conn.root.a = 2
        assert isinstance(db.storage, DemoStorage)
    assert path.stat().st_size == size


def test_a_layout_of_blobs_is_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place_of(f"file://{tmp_path}/Data.fs?blobstorage_layout=lawn")
    assert "blobstorage_layout has no effect" in caplog.text


def test_a_playground_over_a_file(tmp_path: Path) -> None:
    with zeo_client.open(tmp_path / "Data.fs") as db, db.transaction() as conn:
        conn.root.a = 1
    changes = f"(file://{tmp_path}/changes.fs)"
    for value in (1, 2):
        with zeo_client.open(f"demo:(file://{tmp_path}/Data.fs?read_only=1)/{changes}#database_name=play") as db:
            assert db.database_name == "play"
            with db.transaction() as conn:
                assert conn.root.a == value
                conn.root.a = 2
    with zeo_client.open(f"demo:(file://{tmp_path}/Data.fs)/(memory://)") as db, db.transaction() as conn:
        assert conn.root.a == 1


def test_a_playground_that_cannot_be_opened_leaves_its_base_closed(tmp_path: Path) -> None:
    FileStorage(tmp_path / "Data.fs").close()
    place = place_of(f"demo:(file://{tmp_path}/Data.fs)/(file://{tmp_path}/no/such/directory/changes.fs)")
    with pytest.raises(Exception, match="no/such/directory"):
        place.open_storage()
    FileStorage(tmp_path / "Data.fs").close()


ZCONFIG = """
<zodb Main>
  cache-size 17
  pool-timeout 1m
  <mappingstorage/>
</zodb>
<filestorage files>
  path $dir/Data.fs
</filestorage>
"""


@pytest.fixture
def zconfig(tmp_path: Path) -> str:
    (tmp_path / "app.conf").write_text(f"%define dir {tmp_path}\n{ZCONFIG}", "utf-8")
    return f"zconfig://{tmp_path}/app.conf"


def test_a_section_of_a_configuration_file(zconfig: str) -> None:
    for uri in (zconfig, f"{zconfig}#main", f"{zconfig}?connection_pool_size=2#Main"):
        with zeo_client.open(uri) as db:
            assert isinstance(db.storage, MappingStorage)
            assert (db.getCacheSize(), db.database_name, db.pool.timeout) == (17, "main", 60)
            assert db.getPoolSize() == (2 if "?" in uri else 7)
    with zeo_client.open(f"{zconfig}?connection_cache_size=18#files") as db:
        assert isinstance(db.storage, FileStorage)
        assert db.getCacheSize() == 18
    with pytest.raises(TypeError, match="quota cannot be given beside it"):
        zeo_client.open(zconfig, quota=5)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("tape://x", "neither zeo://"),
        ("file://?quota=1", "names no file"),
        ("file:///a?quota=much", "quota=much: no size"),
        ("file:///a?read_only=maybe", "read_only=maybe: neither true nor false"),
        ("file:///a?demostorage", "demostorage=: neither true nor false"),
        ("zeo://db1?wait_timeout=soon", "wait_timeout=soon"),
        ("zeo://db1,:9000/main", "it names no host"),
        ("memory://?connection_pool_size=many", "connection_pool_size=many"),
        ("memory://?colour=blue", "no option 'colour'"),
        ("memory://?connection_colour=blue", "no option 'connection_colour'"),
        ("memory://?class_factory=a.b", "no option 'class_factory'"),
        ("memory://?xrefs=maybe", "xrefs=maybe: neither true nor false"),
        ("demo:(memory://)", "a playground is written"),
        ("demo:(memory://)/(tape://)", "'tape://'"),
        ("demo:(memory://?database_name=x)/(memory://)", "behind the parentheses"),
        ("zconfig:///no/such/file", "no/such/file"),
    ],
)
def test_what_cannot_be_understood(uri: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as info:
        zeo_client.open(uri)
    assert reason in str(info.value)


def test_a_section_that_is_not_there(zconfig: str) -> None:
    with pytest.raises(ConfigurationError, match="no database or storage 'other', but main, files"):
        zeo_client.open(f"{zconfig}#other")


def test_passwords_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigurationError, match=r"password=\.\.\.&wait=x") as info:
        zeo_client.open("zeo://db1?password=secret&wait=x")
    assert "secret" not in str(info.value) + caplog.text


# -- zodburi


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pyproject.toml says, as an installation makes it known, also where an older version is installed."""
    resolvers = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["entry-points"]["zodburi.resolvers"]
    info = tmp_path / "zeod_resolvers-1.dist-info"
    info.mkdir()
    lines = [f"{name} = {value}" for name, value in resolvers.items()]
    (info / "entry_points.txt").write_text("\n".join(["[zodburi.resolvers]", *lines]), "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zeod-resolvers\nVersion: 1\n", "utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.mark.usefixtures("_installed")
def test_zodburi_finds_ours_and_keeps_its_own() -> None:
    owners: dict[str, set[str]] = {}
    for entry_point in entry_points(group="zodburi.resolvers"):
        owners.setdefault(entry_point.name, set()).add(entry_point.value.partition(":")[0])
    ours = {name for name, modules in owners.items() if modules == {"zeo_client.uris"}}
    assert ours == {"zeod", "zeod+demo", "zeod+file", "zeod+memory", "zeod+zconfig"}
    assert all(owners[name] == {"zodburi.resolvers"} for name in ("zeo", "file", "memory", "demo", "zconfig"))


SAID = "connection_pool_size=3&connection_cache_size=17&database_name=main"


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        (f"zeod+file://$dir/own.fs?{SAID}", FileStorage),
        (f"zeod+memory://a?{SAID}", MappingStorage),
        ("zeod+zconfig://$dir/app.conf?connection_pool_size=3", MappingStorage),
        (f"zeod+demo:(memory://)/(memory://)#{SAID}", DemoStorage),
    ],
)
def test_a_database_of_zodbs_through_zodburi(uri: str, kind: type, tmp_path: Path, zconfig: str) -> None:
    assert zconfig
    factory, options = zodburi.resolve_uri(uri.replace("$dir", str(tmp_path)))
    db = ZODB.DB(factory(), **options)
    assert isinstance(db.storage, kind)
    assert (db.getPoolSize(), db.getCacheSize(), db.database_name) == (3, 17, "main")
    db.close()


def test_the_resolver_is_what_the_entry_points_name() -> None:
    entry_point = EntryPoint("zeod", "zeo_client.uris:zodburi_resolver", "zodburi.resolvers")
    assert entry_point.load() is zodburi_resolver
