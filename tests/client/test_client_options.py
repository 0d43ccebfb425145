"""Which options of ZEO's client count."""

import pytest

from zeo_client.client_options import effective_options, note_obsolete


def test_what_counts_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    options = {"storage": "main", "cache_size": 5, "wait": False, "client_label": None}
    assert effective_options("here", options) == {"storage": "main", "cache_size": 5, "wait": False}
    blobs = {"blob_dir": "b", "shared_blob_dir": True, "blob_cache_size": 1, "blob_cache_size_check": 5}
    assert effective_options("here", blobs) == blobs
    assert not caplog.records


def test_what_does_not_is_told(caplog: pytest.LogCaptureFixture) -> None:
    options = {"storage": "main", "rpc_timeout": 5, "kill_if": False, "var": None, "min_disconnect_poll": 0}
    known = {"storage": "main", "min_disconnect_poll": 0}
    assert effective_options("<zeoclient>", options) == known
    [record] = caplog.records
    assert record.getMessage() == "<zeoclient>: rpc-timeout: no effect"


def test_what_has_had_no_effect_for_long_is_told_to_who_debugs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    note_obsolete("db1:9672/1", realm=None)
    assert not caplog.records
    note_obsolete("db1:9672/1", realm="x", password=None, disconnect_poll=0)
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == ("DEBUG", "db1:9672/1: realm, disconnect_poll: no effect")
