import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.storages import commit
from tests.fixtures_tls import Authority
from zeo_core.errors import ConfigurationError, StorageError, StorageFullError
from zeo_core.ids import ROOT_OID, ZERO_TID
from zeo_core.roles import ClientRole
from zeo_core.storage import HasBlobs
from zeo_server.access import AnybodyRule, CertificateRule, UnixUserRule
from zeo_server.allow_list import DEFAULT_CLASSES
from zeo_server.config import Configuration, StorageSection, class_names, file_storage, load, numbered, parse_address
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str) -> Configuration:
    Path("zeo.conf").write_text(text)
    return load("zeo.conf")


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(text)
    message = str(caught.value)
    assert "\n" not in message
    assert "zeo.conf" in message
    return message


ZEO = "<zeo>\naddress 9672\n</zeo>\n"
STORAGE = "<mappingstorage>\n</mappingstorage>\n"


def test_the_least_there_can_be() -> None:
    configuration = loaded(ZEO + STORAGE)
    assert configuration.address == ("", 9672)
    assert [storage.name for storage in configuration.storages] == ["1"]
    assert configuration.read_only is False
    assert configuration.invalidation_queue_size == 100
    assert configuration.transaction_timeout_s == 30
    assert configuration.metrics_address is None
    assert configuration.pid_filename is None
    assert configuration.start_logging is None
    assert configuration.warnings == ()


OLD_INSTALLATION = """
        %define INSTANCE var
        <zeo>
            address 127.0.0.1:$(ZEO_TEST_PORT)
            read-only false
            invalidation-queue-size 250
            invalidation-age 3600
            transaction-timeout 60
            pid-filename $INSTANCE/zeo.pid
            client-conflict-resolution on
            msgpack true
            monitor-address 8101
            authentication-protocol digest
            authentication-database $INSTANCE/passwords
            authentication-realm plone
        </zeo>
        <filestorage main>
            path $INSTANCE/Data.fs
            create no
            read-only no
            pack-gc false
            pack-keep-old false
            packer zc.FileStorage.packer
        </filestorage>
        <mappingstorage Temporary>
            name temp
        </mappingstorage>
        <eventlog>
            level info
            <logfile>
                path $INSTANCE/zeo.log
                level info
            </logfile>
        </eventlog>
        <runner>
            program bin/runzeo
            socket-name $INSTANCE/zeo.zdsock
            daemon true
            forever false
            backoff-limit 10
            exit-codes 0, 2
            directory $INSTANCE
            default-to-interactive true
            <environment>
                LANG C
            </environment>
        </runner>
    """


def test_everything_that_an_old_installation_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEO_TEST_PORT", "8100")
    Path("var").mkdir()
    configuration = loaded(OLD_INSTALLATION)
    assert configuration.address == ("127.0.0.1", 8100)
    assert configuration.invalidation_queue_size == 250
    assert configuration.transaction_timeout_s == 60
    assert configuration.invalidation_age_s == 3600
    assert configuration.client_conflict_resolution
    assert configuration.conflict_resolution_classes == list(DEFAULT_CLASSES)
    assert configuration.pid_filename == "var/zeo.pid"
    assert configuration.start_logging is not None
    assert [(storage.name, storage.what) for storage in configuration.storages] == [
        ("main", "var/Data.fs"),
        ("temporary", "in memory"),  # ZConfig makes section names lower case
    ]
    without_effect = [warning.split(": ")[1].split(" ")[0] for warning in configuration.warnings]
    assert without_effect == [
        "monitor-address",
        "authentication-protocol",
        "authentication-database",
        "authentication-realm",
        "packer",
    ]


def test_metrics_have_an_address_of_their_own() -> None:
    configuration = loaded("<zeo>\naddress 1\nmetrics-address [::1]:9673\n</zeo>\n" + STORAGE)
    assert configuration.metrics_address == ("::1", 9673)


def test_files_are_included() -> None:
    Path("parts").mkdir()
    Path("parts/storage.conf").write_text(STORAGE)
    assert [storage.name for storage in loaded(ZEO + "%include parts/storage.conf").storages] == ["1"]


def test_storages_are_opened_as_configured() -> None:
    one, two = loaded(
        ZEO + "<filestorage 1>\npath Data.fs\n</filestorage>\n<mappingstorage 2>\n</mappingstorage>"
    ).storages
    file = one.open()
    assert isinstance(file, FileStorage)
    assert not file.read_only()
    file.close()
    assert os.path.exists("Data.fs")
    assert isinstance(two.open(), MappingStorage)
    [reader] = loaded(ZEO + "<filestorage>\npath Data.fs\nread-only true\n</filestorage>").storages
    storage = reader.open()
    assert storage.read_only()
    storage.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<zeo>\naddress 1\nadress 2\n</zeo>\n" + STORAGE, "line 3: 'adress' is not a known key name"),
        ("<zeo>\n</zeo>\n" + STORAGE, "no values for 'address'"),
        ("<zeo>\naddress localhost\n</zeo>\n" + STORAGE, "line 2: 'localhost' is no address: it has no port"),
        ("<zeo>\naddress host:port\n</zeo>\n" + STORAGE, "'host:port' is no address"),
        ("<zeo>\naddress 1\ntransaction-timeout -1\n</zeo>\n" + STORAGE, "transaction-timeout -1 is negative"),
        ("<zeo>\naddress 1\ntransaction-timeout soon\n</zeo>\n" + STORAGE, "soon"),
        ("<zeo>\naddress 1\npid-filename /no/where/pid\n</zeo>\n" + STORAGE, "/no/where/pid does not exist"),
        ("<zeo>\naddress 1\n<ssl>\ncertificate x\n</ssl>\n</zeo>\n" + STORAGE, "line 4: x is not an existing path"),
        ("<zeo>\naddress 1\nmetrics-address ./sock\n</zeo>\n" + STORAGE, "'./sock' is no address for metrics"),
        (ZEO, "not enough values for section type 'zeod.storage'"),
        (STORAGE, "no values for section type 'zeo'"),
        (ZEO + "<filestorage>\n</filestorage>", "no values for 'path'"),
        (ZEO + "<filestorage>\npath nowhere/Data.fs\n</filestorage>", "nowhere/Data.fs does not exist"),
        (ZEO + "<filestorage>\npath Data.fs\nquota much\n</filestorage>", "much"),
        (
            ZEO + "<filestorage>\npath Data.fs\ncreate on\nread-only on\n</filestorage>",
            "create and read-only exclude each other",
        ),
        (
            ZEO + f"<blobstorage>\nblob-dir blobs\n{STORAGE}</blobstorage>",
            "<blobstorage>: only a <filestorage> without blob-dir",
        ),
        (ZEO + STORAGE + STORAGE, "two storages have the name '1' (a storage without a name is '1')"),
        (ZEO + STORAGE + "<mappingstorage 1>\n</mappingstorage>", "two storages have the name '1'"),
        (ZEO + "<dustystorage>\n</dustystorage>", "dustystorage"),
        ("<zeo>\naddress 1\n", "zeo.conf"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(text: str, told: str) -> None:
    assert told in refused(text)


def test_a_file_that_is_missing() -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.conf"):
        load("missing.conf")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9672", ("", 9672)),
        (":9672", ("", 9672)),
        ("localhost:9672", ("localhost", 9672)),
        ("[::1]:9672", ("::1", 9672)),
        ("/run/zeod.sock", "/run/zeod.sock"),
        ("./zeod.sock", "./zeod.sock"),
    ],
)
def test_addresses(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "localhost", "localhost:port", "localhost:70000"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address"):
        parse_address(text)


def test_the_nameless_storage_is_number_one() -> None:
    sections: list[StorageSection] = [file_storage("", "a"), file_storage("2", "b")]
    assert [section.name for section in numbered(sections, "x")] == ["1", "2"]
    with pytest.raises(ConfigurationError, match="x: two storages have the name '2'"):
        numbered([*sections, file_storage("2", "c")], "x")


def test_create_opens_what_is_there(caplog: pytest.LogCaptureFixture) -> None:
    [section] = loaded(ZEO + "<filestorage>\npath Data.fs\ncreate true\n</filestorage>").storages
    Path("Data.fs").write_bytes(b"FS")  # its making was cut short
    storage = section.open()
    assert isinstance(storage, FileStorage)
    tid = commit(storage, {ROOT_OID: b"root"})
    storage.close()
    assert caplog.messages == []
    storage = section.open()
    assert isinstance(storage, FileStorage)
    assert storage.load(ROOT_OID) == (b"root", tid)
    storage.close()
    assert caplog.messages == ["Data.fs: has data, and is opened as it is; `create` has no effect"]


def test_the_keys_of_a_file_are_its_options() -> None:
    keys = "quota 4KB\npack-gc off\npack-keep-old off\nblob-dir blobs\n"
    [section] = loaded(ZEO + f"<filestorage>\npath Data.fs\n{keys}</filestorage>").storages
    storage = section.open()
    assert isinstance(storage, FileStorage)
    tid = commit(storage, {ROOT_OID: b"x" * 1000})
    with pytest.raises(StorageFullError, match=r"Data\.fs"):
        commit(storage, {ROOT_OID: b"x" * 4000})
    commit(storage, {ROOT_OID: b"root"}, {ROOT_OID: tid})
    for _ in storage.pack_steps(time.time()):
        pass
    assert not os.path.exists("Data.fs.old")
    storage.close()


DEMO = """
    <demostorage {name}>
        {key}
        {parts}
    </demostorage>
    """


def demo(parts: str, name: str = "", key: str = "") -> StorageSection:
    [section] = loaded(ZEO + DEMO.format(name=name, key=key, parts=parts)).storages
    return section


def test_a_demo_storage_over_a_file() -> None:
    with closing(FileStorage("Data.fs")) as base:
        tid = commit(base, {ROOT_OID: b"root"})
    section = demo(
        "<filestorage>\npath Data.fs\nread-only yes\n</filestorage>\n"
        "<filestorage changes>\npath changes.fs\npacker x\n</filestorage>"
    )
    assert (section.name, section.what) == ("1", "changes changes.fs over Data.fs")
    assert section.warnings == ("changes.fs: packer has no effect",)
    for _ in range(2):
        storage = section.open()
        assert isinstance(storage, DemoStorage)
        assert isinstance(storage.changes, FileStorage)
        assert storage.base.read_only()
        assert storage.load_serial(ROOT_OID, tid) == b"root"
        commit(storage, {ROOT_OID: b"mine"})
        storage.close()  # closes both files, so that they can be opened again


def test_demo_storages_in_demo_storages() -> None:
    section = demo(
        "<demostorage>\n<mappingstorage base>\nname lowest\n</mappingstorage>\n</demostorage>\n",
        name="playground",
        key="name Playground",
    )
    assert (section.name, section.what) == ("playground", "changes in memory over changes in memory over in memory")
    storage = section.open()
    assert isinstance(storage, DemoStorage)
    assert storage.name() == "Playground"
    assert isinstance(storage.base, DemoStorage)
    assert storage.base.base.name() == "lowest"
    empty = demo("").open()
    assert isinstance(empty, DemoStorage)
    assert empty.last_tid() == ZERO_TID


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (STORAGE + STORAGE, "<demostorage>: two storages for the base"),
        ("<mappingstorage changes>\n</mappingstorage>\n" * 2, "must not be re-used"),
        ("<filestorage>\npath Data.fs\nquota much\n</filestorage>", "much"),
    ],
)
def test_demo_storages_that_cannot_be(parts: str, told: str) -> None:
    assert told in refused(ZEO + DEMO.format(name="", key="", parts=parts))


def test_a_demo_storage_that_cannot_be_opened_leaves_nothing_open() -> None:
    FileStorage("Data.fs").close()
    section = demo(
        "<filestorage>\npath Data.fs\n</filestorage>\n"
        "<filestorage changes>\npath changes.fs\nread-only yes\n</filestorage>"
    )
    with pytest.raises(StorageError, match=r"changes\.fs"):
        section.open()
    FileStorage("Data.fs").close()  # its lock is free


@pytest.mark.parametrize(
    "text",
    [
        "<filestorage main>\npath Data.fs\nblob-dir blobs\n</filestorage>",
        "<blobstorage main>\nblob-dir blobs\n<filestorage>\npath Data.fs\npacker x\n</filestorage>\n</blobstorage>",
    ],
)
def test_a_directory_for_blobs(text: str) -> None:
    [section] = loaded(ZEO + text).storages
    assert (section.name, section.what) == ("main", "Data.fs")
    assert section.warnings == (("Data.fs: packer has no effect",) if "packer" in text else ())
    storage = section.open()
    assert isinstance(storage, HasBlobs)
    storage.close()
    assert Path("blobs").is_dir()


def test_a_directory_for_blobs_is_given_once() -> None:
    file = "<filestorage>\npath Data.fs\nblob-dir blobs\n</filestorage>"
    assert "<blobstorage>: only a" in refused(ZEO + f"<blobstorage>\nblob-dir others\n{file}\n</blobstorage>")


def test_the_classes_that_the_server_resolves() -> None:
    assert class_names("default shop.Counter") == [*DEFAULT_CLASSES, "shop.Counter"]
    assert class_names("") == []
    with pytest.raises(ValueError, match="no dotted name"):
        class_names("Counter")


def test_limits_have_keys() -> None:
    assert loaded(ZEO + STORAGE).limits == DEFAULT_LIMITS
    text = "<zeo>\naddress 9672\nmax-clients 7\nmax-message-size 1MB\nidle-timeout 90\nstop-timeout 2.5\n</zeo>\n"
    limits = loaded(text + STORAGE).limits
    assert limits == Limits(clients_max=7, message_max_bytes=1 << 20, idle_timeout_s=90, drain_grace_s=2.5)
    assert "max-clients -1 is less than 0" in refused("<zeo>\naddress 1\nmax-clients -1\n</zeo>\n" + STORAGE)
    assert "line 3" in refused("<zeo>\naddress 1\nmax-blob-size large\n</zeo>\n" + STORAGE)


def with_access(lines: str, tls: str = "") -> str:
    return (
        f"<zeo>\naddress 9672\n{tls}\n<access>\n{lines}\n</access>\n</zeo>\n<mappingstorage main>\n</mappingstorage>\n"
    )


def test_rules_for_access() -> None:
    assert loaded(ZEO + STORAGE).access is None
    rules = loaded(with_access("unix-user 0 admin\nanybody reader main\nunix-user 7 writer main")).access
    assert rules is not None
    assert rules.rules == (
        UnixUserRule(0, ClientRole.ADMIN),
        UnixUserRule(7, ClientRole.WRITER, ("main",)),
        AnybodyRule(ClientRole.READER, ("main",)),
    )


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("", "without a line nobody may do anything"),
        ("anybody owner", "line 5: 'owner' is no role"),
        ("anybody reader elsewhere", "<access>: there is no storage 'elsewhere'"),
        ("certificate alice admin", "a rule for a certificate needs an <ssl> with authenticate"),
        ("group wheel admin", "line 5: 'group' is not a known key name"),
    ],
)
def test_rules_that_could_only_be_a_mistake(lines: str, fault: str) -> None:
    assert fault in refused(with_access(lines))


def test_rules_for_certificates_need_clients_with_certificates(authority: Authority) -> None:
    tls = f"<ssl>\ncertificate {authority.server}\nauthenticate {authority.certificate}\n</ssl>"
    rules = loaded(with_access("certificate *.example.org writer", tls)).access
    assert rules is not None
    assert rules.rules == (CertificateRule("*.example.org", ClientRole.WRITER),)


def test_a_private_network() -> None:
    assert not loaded(ZEO + STORAGE).private_network
    assert loaded("<zeo>\naddress 9672\nprivate-network yes\n</zeo>\n" + STORAGE).private_network
