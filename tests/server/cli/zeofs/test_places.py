"""What the places of a command line mean; servers are in test_copy.py."""

from pathlib import Path

import pytest

from zeo_core.errors import ConfigurationError
from zeo_server.cli.zeofs.places import file_at, open_storage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

CONFIGURATION = """
<zeo>
  address 127.0.0.1:9672
</zeo>
<filestorage main>
  path Main.fs
</filestorage>
<mappingstorage temporary>
</mappingstorage>
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files() -> None:
    assert file_at("Data.fs") == "Data.fs"
    assert file_at("file:///srv/a%20b.fs") == "/srv/a b.fs"
    assert file_at("zeo://here") is file_at("memory://") is file_at("zeo.conf") is file_at("zeo.conf#main") is None
    Path("odd#name.fs").touch()
    assert file_at("odd#name.fs") == "odd#name.fs"


def test_sections_of_a_configuration(directory: Path) -> None:
    (directory / "zeo.conf").write_text(CONFIGURATION)
    main = open_storage("zeo.conf#main", read_only=False)
    beside = open_storage("zeo.conf#main", read_only=True)
    assert isinstance(main, FileStorage)
    assert isinstance(beside, FileStorage)
    assert (main.isReadOnly(), beside.isReadOnly()) == (False, True)
    beside.close()
    main.close()
    assert isinstance(open_storage("zeo.conf#temporary", read_only=True), MappingStorage)
    for where in ("zeo.conf", "zeo.conf#other"):
        with pytest.raises(ConfigurationError, match=r"no such storage in zeo.conf, but zeo.conf#main, zeo.conf#temp"):
            open_storage(where, read_only=True)
    (directory / "one.conf").write_text(CONFIGURATION.split("<mappingstorage")[0])
    open_storage("one.conf", read_only=True).close()


def test_what_means_nothing(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither zeo://"):
        open_storage("http://here", read_only=True)
    with pytest.raises(ConfigurationError, match="names no host"):
        open_storage("zeo://:1", read_only=True)
    with pytest.raises(ConfigurationError, match="only be given for a file"):
        open_storage("memory://", read_only=True, blob_dir="blobs")
    with pytest.raises(ConfigurationError, match=r"none\.conf"):
        open_storage("none.conf", read_only=True)
