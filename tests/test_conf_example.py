"""zeod.conf.example can be read as it is, states the true defaults, and leaves nothing out; nor does its reference."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import fields
from pathlib import Path

import pytest

from zeo_server import config

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "zeod.conf.example"
REFERENCE = ROOT / "docs" / "reference" / "configuration.md"
SECTIONS = ("zeo", "filestorage", "mappingstorage", "demostorage", "blobstorage")

# accepted or refused by zeod, and without effect: the reference tells of them, the example does not show them
WITHOUT_EFFECT = {
    "authentication-database",
    "authentication-protocol",
    "authentication-realm",
    "monitor-address",
    "msgpack",
    "packer",
}

UPSTREAM = ("clientstorage", "zeoclient")
WITHOUT_EFFECT_UPSTREAM = {
    "drop-cache-rather-verify",
    "password",
    "realm",
    "server-sync",
    "username",
}


def keys(sections: tuple[str, ...] = SECTIONS) -> set[str]:
    """All keys of our own sections in the schema."""
    schema = ElementTree.parse(ROOT / "zeo_server" / "schema.xml")
    return {
        key.get("name", "")
        for section in schema.iter("sectiontype")
        if section.get("name") in sections
        for key in (*section.iter("key"), *section.iter("multikey"))
    } - {"+"}


@pytest.fixture
def example(tmp_path: Path) -> str:
    """The example, with directories that exist."""
    return re.sub(r"(?m)^(%define \w+) .*$", rf"\1 {tmp_path}", EXAMPLE.read_text("utf-8"))


def load(tmp_path: Path, text: str) -> config.Configuration:
    path = tmp_path / "zeo.conf"
    path.write_text(text, "utf-8")
    return config.load(str(path))


def test_the_example_states_the_defaults(tmp_path: Path, example: str) -> None:
    required = f"""
        <zeo>
          address 127.0.0.1:9672
        </zeo>
        <filestorage 1>
          path {tmp_path}/Data.fs
        </filestorage>
        """
    stated, default = load(tmp_path, example), load(tmp_path, required)
    for field in fields(config.Configuration):
        if field.name not in ("storages", "start_logging"):
            assert getattr(stated, field.name) == getattr(default, field.name), field.name
    assert [storage.name for storage in stated.storages] == ["1", "scratch", "playground"]


def test_the_storages_of_the_example_open(tmp_path: Path, example: str) -> None:
    for section in load(tmp_path, example).storages:
        storage = section.open()
        assert not storage.read_only()
        storage.close()
    assert (tmp_path / "Data.fs").is_file()


def test_the_keys_without_default_can_be_used(tmp_path: Path, example: str) -> None:
    shown = load(tmp_path, re.sub(r"(?m)^( *)#(?=[a-z])", r"\1", example))
    assert shown.pid_filename == str(tmp_path / "zeod.pid")


def test_the_example_has_every_key() -> None:
    shown = set(re.findall(r"(?m)^ +#?([a-z][a-z-]+) ", EXAMPLE.read_text("utf-8")))
    assert keys() - shown == WITHOUT_EFFECT


def test_the_reference_has_every_key() -> None:
    told = set(re.findall(r"`([a-z-]+)`", REFERENCE.read_text("utf-8")))
    assert keys() | keys(UPSTREAM) | keys(("ssl",)) <= told


def test_the_other_server_of_the_example_can_be_meant(tmp_path: Path, example: str) -> None:
    shown = re.sub(r"(?m)^#(?=<|  )", "", example)
    meant = load(tmp_path, re.sub(r"(?ms)^  #<ssl>.*?#</ssl>", "", shown).replace("\n  name\n", "\n"))
    [replica] = [storage for storage in meant.storages if storage.name == "replica"]
    assert replica.what == "storage 1 of db.example.org:9672"
    told = set(re.findall(r"(?m)^#  #?(?:  )?([a-z][a-z-]+)\b", EXAMPLE.read_text("utf-8")))
    assert keys(UPSTREAM) | keys(("ssl",)) == told | WITHOUT_EFFECT_UPSTREAM
